//! Jobs of many prompts, results later. Accepted means durable.
