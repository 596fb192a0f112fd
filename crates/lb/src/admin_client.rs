//! What commands ask a running gateway at its admin port.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lb_config::MetricsBind;
use lb_control::Source;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer may take that the control thread gives, which may be busy for 30 s.
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);

/// A larger answer is none of ours.
const MAX_ANSWER_BYTES: usize = 64 << 20;

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
        Self::of_file(args, None)
    }

    /// The port that the arguments mean; where they do not say, that of `file`, a configuration that may be the one that runs.
    pub(crate) fn of_file(args: &AdminArgs, file: Option<&PathBuf>) -> anyhow::Result<Self> {
        let address = match (&args.admin, args.config.as_ref().or(file)) {
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
        let answer = self.exchange(Request::get(path), Bytes::new(), PATIENCE).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refused(answer).await?) }
    }

    /// What the port answers to a question whose body is JSON.
    ///
    /// # Errors
    /// As [`Self::get`]. What is wrong with a file is told as `check` does, line by line.
    pub(crate) async fn ask(&self, path: &str, body: String) -> anyhow::Result<Bytes> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let answer = self.exchange(request, body.into(), ANSWER_PATIENCE).await?;
        let (status, is_fine) = (answer.status().as_u16(), answer.status().is_success());
        if !is_fine && status != 422 {
            return Err(self.refused(answer).await?);
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
        let body = timeout(ANSWER_PATIENCE, body).await.context("the answer does not end")?;
        let body = body.map_err(|error| anyhow::anyhow!("the answer is cut: {error}"))?.to_bytes();
        if is_fine {
            return Ok(body);
        }
        let lines: Vec<String> = String::from_utf8_lossy(&body).lines().map(printable).collect();
        bail!("{}", lines.join("\n"))
    }

    async fn exchange(
        &self,
        request: Builder,
        body: Bytes,
        patience: Duration,
    ) -> anyhow::Result<Response<Incoming>> {
        let asked = async {
            let stream = TcpStream::connect(self.address).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(connection);
            let mut request = request.header(HOST, self.address.to_string());
            if let Some(token) = &self.token {
                request = request.header(AUTHORIZATION, token);
            }
            anyhow::Ok(sender.send_request(request.body(Full::new(body))?).await?)
        };
        let answer = timeout(patience, asked).await;
        let answer =
            answer.map_err(|_| anyhow::anyhow!("it does not answer within {} s", patience.as_secs()));
        let answer = answer.and_then(|answer| answer);
        answer.with_context(|| format!("the admin port at {} cannot be asked", self.address))
    }

    /// Why an answer is none.
    async fn refused(&self, answer: Response<Incoming>) -> anyhow::Result<anyhow::Error> {
        let status = answer.status().as_u16();
        let reason = timeout(PATIENCE, answer.into_body().collect()).await??.to_bytes();
        let reason = String::from_utf8_lossy(&reason);
        let reason = printable(reason.trim());
        Ok(anyhow::anyhow!("the admin port at {} answers {status}: {reason}", self.address))
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
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
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
