//! The list of all connections, written as the workers report them: a page is asked for when the one before has been read.

use std::io;

use tokio::sync::{mpsc, oneshot};
use towpath_relay_forward::{DataPlane, ListCursor, ListPage};

use super::schema::ListedConnection;

/// Writes [`Clients`](super::schema::Clients) to `pieces`, a page at a time and a connection a line. Ends early where the reader
/// is gone.
///
/// # Errors
///
/// If the data plane stops meanwhile.
pub(super) async fn write(plane: &DataPlane, pieces: &mpsc::Sender<io::Result<String>>) -> io::Result<()> {
    let (mut text, mut separator) = ("{\"connections\":[".to_owned(), "\n");
    let mut cursor = Some(ListCursor::default());
    while let Some(at) = cursor {
        let page = page(plane, at).await?;
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

async fn page(plane: &DataPlane, at: ListCursor) -> io::Result<ListPage> {
    let (send, page) = oneshot::channel();
    plane.list(at, move |page| {
        // The reader may be gone.
        let _ = send.send(page);
    });
    page.await.map_err(|_| io::Error::other("the relay stops"))
}
