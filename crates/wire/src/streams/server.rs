//! The server's direction: the command's output, and how it ended.

use super::{Kind, Streams, StreamsError};
use crate::{
    channel::{Event, Farewell, Protocol, Source, StatusBytes},
    spdy::{self, Control, Parser, data, go_away, rst_stream},
};

/// REFUSED_STREAM of the draft's §2.6.3.
const REFUSED: u32 = 3;

/// What is known of a server.
#[derive(Debug)]
pub(super) struct Server {
    parser: Parser,
    streams: Streams,
    protocol: Protocol,
    status: StatusBytes,
    /// The streams that it has accepted.
    accepted: u64,
    /// Kind of the stream whose data frame is open.
    open: Option<Kind>,
    /// Whether that frame is the stream's last.
    fin: bool,
}

impl Server {
    pub(super) fn new(protocol: Protocol, streams: Streams) -> Self {
        let parser = Parser::new(Source::Server);
        Self {
            parser,
            streams,
            protocol,
            status: StatusBytes::default(),
            accepted: 0,
            open: None,
            fin: false,
        }
    }

    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(Event<'_>),
    ) -> Result<(), StreamsError> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            match (event, self.open) {
                (spdy::Event::Start(head), _) => self.start(head)?,
                (spdy::Event::Data(payload), Some(Kind::Stdout)) => see(Event::Stdout(payload)),
                (spdy::Event::Data(payload), Some(Kind::Stderr)) => see(Event::Stderr(payload)),
                (spdy::Event::Data(payload), Some(Kind::Error)) => self.status.keep(payload),
                (spdy::Event::End, Some(Kind::Error)) => self.end_of_error_frame(&mut see),
                (spdy::Event::Control(control), _) => self.control(control, &mut see),
                (spdy::Event::Data(_) | spdy::Event::End, _) => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, head: spdy::Head) -> Result<(), StreamsError> {
        let spdy::Kind::Data(id) = head.kind else { return Ok(()) };
        self.fin = head.fin();
        self.open = self.streams.find(id).map(|stream| stream.kind);
        if self.open.is_none() && self.streams.may_lack_one() {
            return Err(StreamsError::Unknown(id));
        }
        Ok(())
    }

    fn end_of_error_frame(&mut self, see: &mut impl FnMut(Event<'_>)) {
        self.status.show(&mut *see);
        if self.fin {
            self.end_of_errors(see);
        }
    }

    fn control(&mut self, control: Control, see: &mut impl FnMut(Event<'_>)) {
        let (id, ends) = match control {
            Control::SynReply { stream, fin } | Control::Headers { stream, fin } => (stream, fin),
            Control::RstStream { stream } => (stream, true),
            Control::GoAway => return self.gone_away(see),
            Control::SynStream { .. } | Control::Ping { .. } | Control::Other => return,
        };
        let Some(stream) = self.streams.find(id) else { return };
        if matches!(control, Control::SynReply { .. }) {
            self.accepted |= stream.bit;
        }
        if ends && stream.kind == Kind::Error {
            self.end_of_errors(see);
        }
    }

    /// A server of version 1 resets this stream as soon as all are open, and says nothing by it.
    fn end_of_errors(&mut self, see: &mut impl FnMut(Event<'_>)) {
        if !self.protocol.is_first() {
            self.gone_away(see);
        }
    }

    fn gone_away(&mut self, see: &mut impl FnMut(Event<'_>)) {
        if !self.protocol.has_status() {
            self.status.end(see);
        }
    }

    /// Data on the error stream, the end of all that client-go waits for (it hangs where one of them is missing), and
    /// GOAWAY. A stream that was not accepted is refused: what comes on it would be thrown away, and whoever opened
    /// it still waits for the answer. A client of version 1 learns of the end only: its server has taken the error
    /// stream away.
    pub(super) fn last_words(&self, farewell: &Farewell<'_>) -> Vec<u8> {
        let mut words = Vec::new();
        let mut message = farewell.on(self.protocol);
        let mut last = 0;
        for stream in self.streams.iter() {
            last = stream.id;
            words.extend(match stream.kind {
                _ if self.accepted & stream.bit == 0 => rst_stream(stream.id, REFUSED),
                Kind::Error => data(stream.id, std::mem::take(&mut message), true),
                Kind::Stdout | Kind::Stderr => data(stream.id, &[], true),
                Kind::Stdin | Kind::Resize => continue,
            });
        }
        words.extend(go_away(last, 0));
        words
    }
}
