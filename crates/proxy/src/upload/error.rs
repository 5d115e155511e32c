//! Why recordings do not reach a recorder.

use std::{io, time::Duration};

use http::StatusCode;
use podwitness_core::grant::AckLevel;
use podwitness_wire::{ack::AckError, cast::HeaderError, pack::PackError};
use thiserror::Error;

/// Why a recorder does not take a recording, or no longer.
#[derive(Debug, Error)]
pub(crate) enum UploadError {
    /// Nothing answers at the address.
    #[error("cannot connect")]
    Dial(#[source] io::Error),
    /// Somebody else has just found out.
    #[error("another attempt has just failed")]
    Again,
    /// A step took too long.
    #[error("no {0} in time")]
    Slow(&'static str),
    /// HTTP failed.
    #[error("the connection failed")]
    Http(#[source] hyper::Error),
    /// The request cannot be built.
    #[error("cannot make the request")]
    Request(#[source] http::Error),
    /// The probe was not answered with 200.
    #[error("the probe was answered {0}")]
    Probe(StatusCode),
    /// It says that it speaks no version 2.
    #[error("not a recorder of version 2")]
    Older,
    /// It closes the connection when it hears version 2.
    #[error("the recorder closes the connection without a word")]
    Mute,
    /// It speaks version 1, and a grant asks for acknowledgements.
    #[error("a recorder of version 1 acknowledges nothing, and a grant asks for that")]
    Unacknowledging,
    /// It takes no API events.
    #[error("the recorder takes no API events")]
    NoEvents,
    /// The upload was refused.
    #[error("the upload was answered {0}")]
    Status(StatusCode),
    /// Its acknowledgements survive less than a grant asks for.
    #[error("its acknowledgements are {0:?}, and a grant asks for {1:?}")]
    Weak(Option<AckLevel>, AckLevel),
    /// The recorder reports an error.
    #[error("the recorder says: {0}")]
    Recorder(String),
    /// The response cannot be read.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// It acknowledges more than there was: whatever it counts, it is not this upload.
    #[error("the recorder acknowledges {0} bytes, and {1} were sent")]
    Unsent(u64, u64),
    /// The response ended first.
    #[error("the recorder ended the upload early")]
    Early,
    /// Nothing came for too long.
    #[error("the recorder acknowledged nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// The header cannot be written.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The lines cannot be compressed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The spool cannot be read back.
    #[error("cannot read the spool")]
    Spool(#[source] io::Error),
}

impl UploadError {
    /// Whether another connection may do better.
    pub(super) const fn is_of_connection(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Slow(_))
    }

    /// Whether no recorder can do better.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Spool(_))
    }
}
