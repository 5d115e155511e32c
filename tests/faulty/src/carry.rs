//! Between the network and the recorder: bytes pass unless the fault of the moment has it otherwise.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::watch,
    time::sleep,
};

use crate::fault::{Fault, Faults};

/// Most that is carried at once.
const PIECE: usize = 16 << 10;
/// What noise consists of: as HTTP/2, a frame longer than any may be.
const NOISE: u8 = 0xa5;

/// Carries both directions until both have ended, or one has failed.
///
/// # Errors
/// That failure.
pub async fn carry<N, R>(network: N, recorder: R, faults: &Faults) -> io::Result<()>
where
    N: AsyncRead + AsyncWrite,
    R: AsyncRead + AsyncWrite,
{
    let (heard, say) = split(network);
    let (said, hear) = split(recorder);
    tokio::try_join!(inward(heard, hear, faults), outward(said, say, faults)).map(drop)
}

/// What the recorder takes.
async fn inward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    faults: &Faults,
) -> io::Result<()> {
    let (mut piece, mut fault) = (vec![0; PIECE], faults.watch());
    loop {
        let len = from.read(&mut piece).await?;
        // The sender outlives this.
        let _ = fault.wait_for(|fault| *fault != Fault::Hang).await;
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(piece.get(..faults.admit(len)).unwrap_or_default()).await?;
    }
}

/// What the recorder says.
async fn outward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    faults: &Faults,
) -> io::Result<()> {
    let (mut piece, mut fault) = (vec![0; PIECE], faults.watch());
    loop {
        let len = from.read(&mut piece).await?;
        hold(&mut fault).await;
        if len == 0 {
            return to.shutdown().await;
        }
        let said = piece.get_mut(..len).unwrap_or_default();
        if *fault.borrow() == Fault::Garble {
            said.fill(NOISE);
        }
        to.write_all(said).await?;
    }
}

/// Holds what was said back for as long as the fault of the moment wants it, and no longer than that lasts.
async fn hold(fault: &mut watch::Receiver<Fault>) {
    loop {
        let pause = match *fault.borrow_and_update() {
            Fault::Hang => Duration::MAX,
            Fault::Late(millis) => Duration::from_millis(millis),
            _ => return,
        };
        tokio::select! {
            () = sleep(pause) => return,
            Ok(()) = fault.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{DuplexStream, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    fn carried(faults: &Faults) -> (DuplexStream, DuplexStream) {
        let ((client, network), (recorder, inner)) = (duplex(64), duplex(64));
        let faults = faults.clone();
        tokio::spawn(async move { carry(network, inner, &faults).await });
        (client, recorder)
    }

    async fn passes(from: &mut DuplexStream, to: &mut DuplexStream) -> [u8; 4] {
        let mut heard = [0; 4];
        from.write_all(b"word").await.unwrap();
        to.read_exact(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_fault_everything_passes_until_the_end() {
        let (mut client, mut recorder) = carried(&Faults::default());
        assert_eq!(passes(&mut client, &mut recorder).await, *b"word");
        assert_eq!(passes(&mut recorder, &mut client).await, *b"word");
        drop(client);
        assert_eq!(recorder.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recorder_that_hangs_neither_takes_nor_says_anything_until_it_is_well() {
        let faults = Faults::default();
        let (mut client, mut recorder) = carried(&faults);
        faults.set(Fault::Hang);
        client.write_all(b"in").await.unwrap();
        recorder.write_all(b"out").await.unwrap();
        let (mut two, mut three) = ([0; 2], [0; 3]);
        let an_hour = Duration::from_secs(3600);
        assert!(timeout(an_hour, recorder.read_exact(&mut two)).await.is_err());
        assert!(timeout(an_hour, client.read_exact(&mut three)).await.is_err());
        faults.set(Fault::None);
        recorder.read_exact(&mut two).await.unwrap();
        client.read_exact(&mut three).await.unwrap();
        assert_eq!((&two, &three), (b"in", b"out"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_recorder_takes_at_once_and_says_later() {
        let faults = Faults::default();
        let (mut client, mut recorder) = carried(&faults);
        faults.set(Fault::Late(1500));
        let begun = Instant::now();
        passes(&mut client, &mut recorder).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        passes(&mut recorder, &mut client).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(1500));
    }

    #[tokio::test(start_paused = true)]
    async fn noise_comes_out_where_a_word_went_in() {
        let faults = Faults::default();
        let (mut client, mut recorder) = carried(&faults);
        faults.set(Fault::Garble);
        assert_eq!(passes(&mut client, &mut recorder).await, *b"word");
        assert_eq!(passes(&mut recorder, &mut client).await, [NOISE; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_byte_goes_in_behind_the_one_that_kills() {
        let faults = Faults::default();
        let (mut client, mut recorder) = carried(&faults);
        faults.set(Fault::DieAt(3));
        client.write_all(b"word").await.unwrap();
        client.shutdown().await.unwrap();
        let mut taken = Vec::new();
        recorder.read_to_end(&mut taken).await.unwrap();
        assert_eq!((taken.as_slice(), faults.now()), (&b"wor"[..], Fault::Dead));
    }
}
