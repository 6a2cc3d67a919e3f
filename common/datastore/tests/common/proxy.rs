//! A TCP proxy that can be cut or fall silent.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything.
    Open,
    /// Closes every connection, the new ones too.
    Cut,
    /// Passes nothing and closes nothing.
    Hole,
}

pub struct Proxy {
    pub url: String,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: String) -> Proxy {
        let address = format!("{}:2379", super::own_address());
        let listener = TcpListener::bind(&address).await.expect("proxy address");
        let (mode, modes) = watch::channel(Mode::Open);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let (target, modes) = (target.clone(), modes.clone());
                tokio::spawn(pass(client, target, modes));
            }
        });
        Proxy { url: format!("http://{address}"), mode, task }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, target: String, mut modes: watch::Receiver<Mode>) {
    // While there is a hole even the connection to the target has to wait.
    if modes.wait_for(|mode| *mode != Mode::Hole).await.is_err() || *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        let mode = *modes.borrow_and_update();
        let open = mode == Mode::Open;
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            () = std::future::ready(()), if mode == Mode::Cut => return,
            got = client.read(&mut up), if open => match got {
                Ok(n) if n > 0 && server.write_all(&up[..n]).await.is_ok() => {}
                _ => return,
            },
            got = server.read(&mut down), if open => match got {
                Ok(n) if n > 0 && client.write_all(&down[..n]).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
