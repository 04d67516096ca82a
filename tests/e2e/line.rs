//! A line to the API server that can be cut and frozen.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    open: bool,
    /// Connections of an older generation are dropped, with what they hold.
    generation: u64,
}

/// Passes connections on to one address.
pub struct Line {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl Line {
    pub async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State {
            open: true,
            generation: 0,
        }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, target, shared.subscribe()));
            }
        });
        Ok(Self {
            address,
            state,
            task,
        })
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Nothing passes any more, and nobody is told: packets vanish.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.open = false);
    }

    /// All that was held back arrives after all.
    pub fn thaw(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// New connections pass; those that were frozen are gone, with what they held.
    pub fn mend(&self) {
        self.state.send_modify(|state| {
            state.open = true;
            state.generation += 1;
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(from: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let born = state.borrow().generation;
    if state.wait_for(|state| state.open).await.is_err() || state.borrow().generation != born {
        return;
    }
    let Ok(to) = TcpStream::connect(target).await else {
        return;
    };
    let (client_reads, client_writes) = from.into_split();
    let (server_reads, server_writes) = to.into_split();
    let replaced = async {
        let mut state = state.clone();
        let _ = state.wait_for(|state| state.generation != born).await;
    };
    tokio::select! {
        () = copy(client_reads, server_writes, state.clone()) => {}
        () = copy(server_reads, client_writes, state.clone()) => {}
        () = replaced => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let opened = state.wait_for(|state| state.open).await.is_ok();
        if !opened || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    // One direction may end while the other has more to carry.
    let _ = state.wait_for(|state| state.open).await;
}
