//! What goes over the proxy's connections: counted at the stream, where nothing is missed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts of one destination and purpose.
#[derive(Debug, Default)]
pub struct Traffic {
    made: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// A connection could not be made, or was not one to use.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections made.
    pub fn made_count(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Connections held now.
    pub fn open_count(&self) -> u64 {
        let ended = self.ended.load(Ordering::Relaxed);
        self.made_count().saturating_sub(ended)
    }

    /// Connections that could not be made, or used.
    pub fn failed_count(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Octets sent and received.
    pub fn octets(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        )
    }
}

/// A stream that is counted until it is dropped.
pub struct Counted<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S> Counted<S> {
    /// Counts one more.
    pub fn new(stream: S, traffic: &Arc<Traffic>) -> Self {
        traffic.made.fetch_add(1, Ordering::Relaxed);
        Self {
            stream,
            traffic: Arc::clone(traffic),
        }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.traffic.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn count(counter: &AtomicU64, octets: usize) {
    counter.fetch_add(u64::try_from(octets).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        count(&self.traffic.received, buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, octets);
        if let Poll::Ready(Ok(length)) = &written {
            count(&self.traffic.sent, *length);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_goes_each_way_is_counted_and_who_is_open() {
        let traffic = Arc::new(Traffic::default());
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Counted::new(near, &traffic);
        near.write_all(b"hello").await.unwrap();
        far.write_all(b"hi").await.unwrap();
        let mut two = [0; 2];
        near.read_exact(&mut two).await.unwrap();
        assert_eq!(traffic.octets(), (5, 2));
        assert_eq!((traffic.made_count(), traffic.open_count()), (1, 1));
        drop(near);
        assert_eq!((traffic.made_count(), traffic.open_count()), (1, 0));
    }
}
