//! The list of all connections, written as the workers report them: a page is asked for when the one before has been read.

use std::io;

use tokio::sync::{Mutex, mpsc, oneshot};
use towpath_relay_forward::{DataPlane, ListCursor, ListPage};

use super::schema::ListedConnection;

/// Writes [`Clients`](super::schema::Clients) to `pieces`, a page at a time and a connection a line. Ends early where the reader
/// is gone. `turn` is held while a page is made, and not while the reader is waited for: a listing that is not read delays no
/// other.
///
/// # Errors
///
/// If the data plane stops meanwhile.
pub(super) async fn write(
    plane: &DataPlane,
    turn: &Mutex<()>,
    pieces: &mpsc::Sender<io::Result<String>>,
) -> io::Result<()> {
    let (mut text, mut separator) = ("{\"connections\":[".to_owned(), "\n");
    let mut cursor = Some(ListCursor::default());
    while let Some(at) = cursor {
        let page = page(plane, turn, at).await?;
        for report in &page.connections {
            text += separator;
            text += &serde_json::to_string(&ListedConnection::from(report))?;
            separator = ",\n";
        }
        if pieces.send(Ok(std::mem::take(&mut text))).await.is_err() {
            return Ok(());
        }
        cursor = page.next;
    }
    // A reader that has gone needs no end.
    let _ = pieces.send(Ok("\n]}\n".to_owned())).await;
    Ok(())
}

async fn page(plane: &DataPlane, turn: &Mutex<()>, at: ListCursor) -> io::Result<ListPage> {
    let _alone = turn.lock().await;
    let (send, page) = oneshot::channel();
    plane.list(at, move |page| {
        // The reader may be gone.
        let _ = send.send(page);
    });
    page.await.map_err(|_| io::Error::other("the relay stops"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::yield_now;
    use tokio::time::timeout;
    use towpath_relay_forward::{DataPlaneConfig, PlaneLimits, PollPolicy};
    use towpath_wire::key::NodePublic;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    /// How long a fact may take to become true.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn config() -> DataPlaneConfig {
        DataPlaneConfig {
            limits: PlaneLimits { write_timeout: MINUTE, max_connections_per_key: 8, max_link_keys: 4 },
            keepalive: MINUTE,
            poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
            own_key: NodePublic::from_bytes([9; 32]),
            watchable: false,
            max_frame_memory: 64 << 20,
        }
    }

    #[tokio::test]
    async fn a_listing_that_is_not_read_keeps_no_other_waiting() {
        let (plane, workers) = DataPlane::start(1, config(), || {}, || {}).expect("a worker");
        let (plane, turn) = (Arc::new(plane), Arc::new(Mutex::new(())));
        let (unread, mut pieces_of_unread) = mpsc::channel(1);
        let first = {
            let (plane, turn, unread) = (plane.clone(), turn.clone(), unread.clone());
            tokio::spawn(async move { write(&plane, &turn, &unread).await })
        };
        let is_full = async {
            while unread.capacity() > 0 {
                yield_now().await;
            }
        };
        timeout(PATIENCE, is_full).await.expect("the first has more to write than may wait");

        let (pieces, mut read) = mpsc::channel(8);
        timeout(PATIENCE, write(&plane, &turn, &pieces)).await.expect("the second is done").expect("a list");
        drop(pieces);
        let mut text = String::new();
        while let Some(piece) = read.recv().await {
            text += &piece.expect("a piece");
        }
        assert_eq!(text, "{\"connections\":[\n]}\n");

        assert!(!first.is_finished(), "the first waits for its reader");
        pieces_of_unread.recv().await.expect("a piece").expect("the beginning");
        pieces_of_unread.recv().await.expect("a piece").expect("the end");
        first.await.expect("no panic").expect("a list");
        workers.stop();
    }
}
