//! What servers connect to as their database: a port that can be cut and turned to another database server, as a virtual address or a
//! cluster's DNS name does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A TCP proxy on 127.0.0.1.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    cut: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub fn start(target: u16, handle: &tokio::runtime::Handle) -> Result<Self> {
        let listener = handle.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let target = Arc::new(AtomicU16::new(target));
        let cut = watch::Sender::new(0);
        let task = handle.spawn(serve(listener, target.clone(), cut.clone()));
        Ok(Self { port, target, cut, task })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection; new ones are taken.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// New connections go to this port from now on; those there are end.
    pub fn turn(&self, target: u16) {
        self.target.store(target, Ordering::Release);
        self.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: Arc<AtomicU16>, cut: watch::Sender<u64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(carry(client, target.load(Ordering::Acquire), cut.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, target: u16, mut cut: watch::Receiver<u64>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok();
    }
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = cut.changed() => {}
    }
}
