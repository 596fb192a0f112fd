//! What commands ask a running gateway at its admin port.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lb_config::MetricsBind;
use lb_control::Source;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The variable that holds the token.
const TOKEN: &str = "EXPRESSGATEWAY_TOKEN";

/// Where a running gateway is asked, and by whom.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Address of the admin port [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    admin: Option<SocketAddr>,
    /// Configuration file that says where the admin port is
    #[arg(short = 'c', long, value_name = "CONFIG")]
    config: Option<PathBuf>,
    /// File with the bearer token; without it EXPRESSGATEWAY_TOKEN, if that is set
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The admin port of a running gateway.
#[derive(Debug)]
pub(crate) struct AdminClient {
    address: SocketAddr,
    token: Option<HeaderValue>,
}

impl AdminClient {
    /// The port that the arguments mean.
    pub(crate) fn of(args: &AdminArgs) -> anyhow::Result<Self> {
        let address = match (&args.admin, &args.config) {
            (Some(address), _) => *address,
            (None, None) => MetricsBind::DEFAULT,
            (None, Some(path)) => {
                let config = lb_control::load(&Source::File(path.clone()).read()?)?;
                match config.observability.metrics_bind {
                    MetricsBind::At(address) => address,
                    MetricsBind::Default => MetricsBind::DEFAULT,
                    MetricsBind::Off => {
                        bail!("{} has no admin port: metrics_bind is \"off\"", path.display())
                    }
                }
            }
        };
        let token = match &args.token_file {
            Some(path) => {
                Some(fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?)
            }
            None => std::env::var(TOKEN).ok().filter(|token| !token.is_empty()),
        };
        let token = token.map(|token| HeaderValue::try_from(format!("Bearer {}", token.trim())));
        let token = token.transpose().context("the token has characters that no token has")?;
        Ok(Self { address, token })
    }

    /// What the port answers to a GET, whose body is still to be read.
    ///
    /// # Errors
    /// When it cannot be reached, or answers with another status than 200: then with the reason that it gives.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let asked = async {
            let stream = TcpStream::connect(self.address).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(connection);
            let mut request = Request::get(path).header(HOST, self.address.to_string());
            if let Some(token) = &self.token {
                request = request.header(AUTHORIZATION, token);
            }
            anyhow::Ok(sender.send_request(request.body(Empty::new())?).await?)
        };
        let address = self.address;
        let answer = timeout(PATIENCE, asked).await;
        let answer =
            answer.map_err(|_| anyhow::anyhow!("it does not answer within {} s", PATIENCE.as_secs()));
        let answer = answer.and_then(|answer| answer);
        let answer = answer.with_context(|| format!("the admin port at {address} cannot be asked"))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let reason = timeout(PATIENCE, answer.into_body().collect()).await??.to_bytes();
        let reason = String::from_utf8_lossy(&reason);
        bail!("the admin port at {address} answers {status}: {}", printable(reason.trim()));
    }

    /// The whole body that the port answers to a GET.
    ///
    /// # Errors
    /// As [`Self::get`], and when the body does not come.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<Bytes> {
        let body = timeout(PATIENCE, self.get(path).await?.into_body().collect()).await;
        Ok(body.context("the answer does not end")??.to_bytes())
    }
}

/// Runs a command that asks.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A text that cannot move the cursor of a terminal or turn its words around.
pub(crate) fn printable(text: &str) -> String {
    let is_odd = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if is_odd(character) { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_07_what_peers_sent_does_nothing_to_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}ä"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}ä");
    }
}
