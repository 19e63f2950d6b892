//! What all stores have in common, and what each has of its own.

mod conformance;
mod etcd;
mod local;
mod properties;
mod security;
