//! Uploads: a journal read from its acknowledged cursor, to whichever recorder takes it.
