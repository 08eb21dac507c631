//! A workload that uses rust-spiffe. The commands are the same for all languages: see ../../README.md.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use spiffe::{JwtSource, JwtSvid, X509Source, X509Svid};
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use spiffe_rustls_tokio::{TlsAcceptor, TlsConnector};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

type Done = Result<(), Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Done {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let run = async {
        match args.as_slice() {
            ["fetch"] => show(&*X509Source::new().await?.svid()?),
            ["watch", n] => watch(n.parse()?).await,
            ["serve"] => serve().await,
            ["connect", address, server] => connect(address, server).await,
            ["jwt", audience] => {
                println!("{}", JwtSource::new().await?.fetch_jwt_svid([audience]).await?.token());
                Ok(())
            }
            ["validate", audience, token] => {
                let source = JwtSource::new().await?;
                let svid = JwtSvid::parse_and_validate(token, source.bundle_set()?.as_ref(), &[*audience])?;
                println!("{}", svid.spiffe_id());
                Ok(())
            }
            ["agent-validate", audience, token] => {
                let client = spiffe::WorkloadApiClient::connect_env().await?;
                println!("{}", client.validate_jwt_token(*audience, token).await?.spiffe_id());
                Ok(())
            }
            _ => Err("usage: fetch | watch N | serve | connect ADDR ID | jwt AUD | validate AUD TOKEN".into()),
        }
    };
    tokio::time::timeout(Duration::from_secs(240), run).await?
}

fn show(svid: &X509Svid) -> Done {
    let (_, leaf) = x509_parser::parse_x509_certificate(svid.leaf().as_bytes())?;
    let line = serde_json::json!({
        "id": svid.spiffe_id().to_string(),
        "serial": leaf.serial.to_string(),
        "not_after": leaf.validity().not_after.timestamp(),
    });
    println!("{line}");
    Ok(())
}

async fn watch(n: usize) -> Done {
    let source = X509Source::new().await?;
    let mut updates = source.updated();
    let mut seen = HashSet::new();
    loop {
        let svid = source.svid()?;
        if seen.insert(svid.leaf().as_bytes().to_vec()) {
            show(&svid)?;
        }
        if seen.len() == n {
            return Ok(());
        }
        updates.changed().await?;
    }
}

/// Answers each line of a caller with that caller's SPIFFE ID, until stdin closes.
async fn serve() -> Done {
    let source = X509Source::new().await?;
    let acceptor = TlsAcceptor::new(Arc::new(mtls_server(source).authorize(authorizer::any()).build()?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut stdin = tokio::io::stdin();
    let mut rest = Vec::new();
    let serving = async {
        loop {
            let (tcp, _) = listener.accept().await?;
            if let Err(err) = answer(&acceptor, tcp).await {
                eprintln!("rust: serve: {err}");
            }
        }
    };
    tokio::select! {
        done = serving => done,
        _ = stdin.read_to_end(&mut rest) => Ok(()),
    }
}

async fn answer(acceptor: &TlsAcceptor, tcp: tokio::net::TcpStream) -> Done {
    let (tls, peer) = acceptor.accept(tcp).await?;
    let mut tls = BufReader::new(tls);
    let mut line = String::new();
    tls.read_line(&mut line).await?;
    let id = peer.spiffe_id().ok_or("the caller has no SPIFFE ID")?;
    tls.write_all(format!("{id}\n").as_bytes()).await?;
    tls.shutdown().await?;
    Ok(())
}

async fn connect(address: &str, server: &str) -> Done {
    let source = X509Source::new().await?;
    let config = mtls_client(source).authorize(authorizer::exact([server])?).build()?;
    let connector = TlsConnector::new(Arc::new(config));
    let (tls, _) = connector.connect_addr(address.parse()?, ServerName::try_from("workload")?).await?;
    let mut tls = BufReader::new(tls);
    tls.write_all(b"who am I\n").await?;
    let mut line = String::new();
    tls.read_line(&mut line).await?;
    print!("{line}");
    Ok(())
}
