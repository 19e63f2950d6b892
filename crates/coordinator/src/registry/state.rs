/// What a worker is good for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// Its heart beats, and it takes requests for this model.
    Ready { model: String },
    /// Takes no more requests; those that run go on.
    Draining { model: String },
    /// Its heart beats, and it fails at requests: left out for a while.
    Suspended { model: String },
    /// Not usable, and why.
    Unready { reason: String },
}

impl WorkerState {
    /// Its word for operators.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Draining { .. } => "draining",
            Self::Suspended { .. } => "suspended",
            Self::Unready { .. } => "unready",
        }
    }

    /// Why it is not ready; nothing where it is.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Ready { .. } => "",
            Self::Draining { .. } => "it takes no more requests: it drains",
            Self::Suspended { .. } => "it failed at several requests in a row: it is left out for a while",
            Self::Unready { reason } => reason,
        }
    }
}

/// How a worker was lost, and with it the streams of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No sign of life in time.
    Silence,
    /// The connection broke.
    Connection,
    /// It handed the request back, to end soon or to serve another model.
    Handover,
    /// Its engine failed.
    Engine,
}

impl Loss {
    /// The label of the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Connection => "connection",
            Self::Handover => "handover",
            Self::Engine => "engine",
        }
    }
}
