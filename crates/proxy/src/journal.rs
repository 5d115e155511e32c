//! The journal: an append-only log of one session's cast bytes, with cursors `acked ≤ sent ≤ appended`.
