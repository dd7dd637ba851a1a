//! A connection to a server that fails at a chosen moment: a proxy that reads one message type of PostgreSQL.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::JoinSet,
};

/// Fault of the next message with a commit; later messages pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message is forwarded, then the client's end is cut: the server commits, and the reply is lost.
    CutBehind,
    /// Both ends are cut before the server receives the message.
    CutBefore,
    /// The message is held until it is [released](Line::release).
    Keep,
    /// The message and all later ones on this connection are lost; both ends believe that the other is connected.
    Lose,
}

/// A proxied connection to a server.
pub struct Line {
    port: u16,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

struct State {
    next: Mutex<Option<Fault>>,
    /// Accepts connections and messages, and forwards none.
    silent: watch::Sender<bool>,
    delay: watch::Sender<Duration>,
    released: Notify,
    connections: AtomicUsize,
}

impl Line {
    /// Forwards to the server at this port of this machine.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silent, delay) = (watch::Sender::new(false), watch::Sender::new(Duration::ZERO));
        let state = Arc::new(State {
            next: Mutex::default(),
            silent,
            delay,
            released: Notify::new(),
            connections: AtomicUsize::new(0),
        });
        let accepted = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(carry(Arc::clone(&accepted), client, server));
            }
        });
        Self { port, state, accepting }
    }

    /// Returns the URL of a database behind the proxy.
    pub fn url(&self, url: &str) -> String {
        let (_, database) = url.rsplit_once('/').unwrap();
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn fails_next(&self, fault: Fault) {
        *self.state.next.lock().unwrap() = Some(fault);
    }

    /// Returns whether the fault has occurred.
    pub fn has_failed(&self) -> bool {
        self.state.next.lock().unwrap().is_none()
    }

    /// Forwards a message that was held.
    pub fn release(&self) {
        self.state.released.notify_one();
    }

    /// Returns the number of connections through the proxy.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    pub fn be_silent(&self, silent: bool) {
        self.state.silent.send_replace(silent);
    }

    pub fn be_slow(&self, delay: Duration) {
        self.state.delay.send_replace(delay);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(state: Arc<State>, client: TcpStream, server: u16) {
    state.speaks().await;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let back = tokio::spawn(answers(Arc::clone(&state), from_server, to_client));
    match messages(&state, from_client, to_server).await {
        Some(Fault::CutBehind) => back.abort(), // the server still has its end
        Some(Fault::Lose) => drop(back.await),
        _ => back.abort(),
    }
}

impl State {
    async fn speaks(&self) {
        let _ = self.silent.subscribe().wait_for(|silent| !silent).await;
    }

    async fn pass_on(&self, bytes: &[u8], to: &mut OwnedWriteHalf) -> Option<()> {
        self.speaks().await;
        to.write_all(bytes).await.ok()
    }
}

async fn answers(state: Arc<State>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut bytes = [0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let delay = *state.delay.borrow();
        tokio::time::sleep(delay).await;
        if state.pass_on(&bytes[..read], &mut to).await.is_none() {
            return;
        }
    }
}

/// Forwards the client's messages one by one; returns the fault that ended it.
async fn messages(state: &State, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Option<Fault> {
    let mut greeted = false;
    loop {
        // The first message has no type: the request for encryption, which is denied, and then the start-up message.
        let mut kind = [0; 1];
        if greeted {
            from.read_exact(&mut kind).await.ok()?;
        }
        let length = from.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        from.read_exact(&mut body).await.ok()?;
        let mut message = Vec::with_capacity(body.len() + 5);
        message.extend(greeted.then_some(kind[0]));
        message.extend(length.to_be_bytes());
        message.extend(&body);
        greeted |= !body.starts_with(&80_877_103_u32.to_be_bytes());
        let commits = kind[0] == b'Q' && body.ends_with(b"COMMIT\0");
        let fault = if commits { state.next.lock().unwrap().take() } else { None };
        match fault {
            Some(Fault::CutBefore) => return fault,
            Some(Fault::CutBehind) => {
                state.pass_on(&message, &mut to).await?;
                // The client's end stays open until the server has gone on.
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    drop(to);
                });
                return fault;
            }
            Some(Fault::Lose) => {
                let mut lost = [0; 1_024];
                while let Ok(1..) = from.read(&mut lost).await {}
                std::future::pending::<()>().await; // the server does not learn that the client is gone
            }
            Some(Fault::Keep) => {
                state.released.notified().await;
                state.pass_on(&message, &mut to).await?;
            }
            None => state.pass_on(&message, &mut to).await?,
        }
    }
}
