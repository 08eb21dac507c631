//! StatsD and DogStatsD: every change is a line, lines go in UDP packets, as go-metrics' sinks send them.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{net::UdpSocket, sync::mpsc, time};

use super::registry::Registry;

/// What a daemon reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Label values are parts of the name.
    Statsd,
    /// Labels are tags.
    DogStatsd,
}

/// `host:port` of a daemon that is told of every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    pub dialect: Dialect,
    pub address: String,
}

/// Lines that wait; more are dropped, so that a daemon that is not there costs nothing.
const MAX_WAITING: usize = 4_096;
/// go-metrics' packet size and pause.
const MAX_PACKET: usize = 1_400;
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// How often what changes by itself (uptime, memory) is looked up.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_secs(5);

/// Where series put their lines. Clones are the same.
#[derive(Clone)]
pub(super) struct Lines {
    dialect: Dialect,
    waiting: mpsc::Sender<String>,
}

impl Lines {
    /// The two ends of a line for a series: before the value and after its kind.
    pub fn ends(&self, name: &str, labels: &[(String, String)]) -> (String, String) {
        let clean = |text: &str| text.replace([':', ' '], "_");
        match self.dialect {
            Dialect::Statsd => {
                let values = labels.iter().map(|(_, value)| format!(".{}", clean(value)));
                (format!("{}{}:", clean(name), values.collect::<String>()), String::new())
            }
            Dialect::DogStatsd => {
                let tags: Vec<String> = labels.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                let tags = if tags.is_empty() { String::new() } else { format!("|#{}", tags.join(",")) };
                (format!("{}:", clean(name)), tags)
            }
        }
    }

    fn value(&self, value: f64) -> String {
        match self.dialect {
            Dialect::Statsd => format!("{value:.6}"),
            Dialect::DogStatsd => value.to_string(),
        }
    }
}

/// One series of one daemon.
pub(super) struct Pushed {
    lines: Lines,
    start: String,
    end: String,
}

impl Pushed {
    pub fn new(lines: &Lines, name: &str, labels: &[(String, String)]) -> Self {
        let (start, end) = lines.ends(name, labels);
        Self { lines: lines.clone(), start, end }
    }

    /// `kind`: `c`, `g` or `ms`.
    pub fn send(&self, value: f64, kind: &str) {
        if self.lines.waiting.capacity() > 0 {
            let line = format!("{}{}|{kind}{}\n", self.start, self.lines.value(value), self.end);
            let _ = self.lines.waiting.try_send(line);
        }
    }
}

/// Carries the lines to the daemon.
pub struct Pusher {
    target: PushTarget,
    lines: mpsc::Receiver<String>,
}

impl Pusher {
    pub(super) fn new(target: PushTarget) -> (Lines, Self) {
        let (waiting, lines) = mpsc::channel(MAX_WAITING);
        (Lines { dialect: target.dialect, waiting }, Self { target, lines })
    }

    /// Sends until dropped.
    pub async fn run(mut self, registry: Registry) {
        let mut flush = time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut look = time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let socket = match connect(&self.target.address).await {
                Ok(socket) => socket,
                Err(error) => {
                    let address = &self.target.address;
                    tracing::error!(subsystem_name = "telemetry", address, %error, "Error connecting to statsd");
                    time::sleep(CONNECT_AGAIN).await;
                    continue;
                }
            };
            let mut packet = String::new();
            // A packet that nobody takes is lost, as always with UDP.
            loop {
                tokio::select! {
                    line = self.lines.recv() => {
                        let Some(line) = line else { return };
                        if packet.len() + line.len() > MAX_PACKET {
                            let _ = socket.send(packet.as_bytes()).await;
                            packet.clear();
                        }
                        packet.push_str(&line);
                    }
                    _ = flush.tick(), if !packet.is_empty() => {
                        let _ = socket.send(packet.as_bytes()).await;
                        packet.clear();
                    }
                    _ = look.tick() => registry.note_process(),
                }
            }
        }
    }
}

async fn connect(address: &str) -> std::io::Result<UdpSocket> {
    let mut last = None;
    for to in tokio::net::lookup_host(address).await? {
        let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(from).await?;
        match socket.connect(to).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("the name has no address")))
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A handle that writes to the series and tells the daemons.
pub(super) struct Told<T> {
    pub series: Arc<T>,
    pub pushed: Vec<Pushed>,
}

impl<T> Told<T> {
    pub fn tell(&self, value: f64, kind: &str) {
        for pushed in &self.pushed {
            pushed.send(value, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;

    use super::super::MetricsConfig;
    use super::*;

    async fn received(dialect: Dialect) -> String {
        let daemon = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = PushTarget { dialect, address: daemon.local_addr().unwrap().to_string() };
        let config = MetricsConfig { prefix: "spire_server".to_owned(), ..MetricsConfig::default() };
        let (registry, pushers) = Registry::with_push(config, vec![target]);
        let mut running = tokio::task::JoinSet::new();
        with_local_recorder(&registry, || {
            metrics::counter!("a.b", "status" => "OK").increment(2);
            metrics::gauge!("g").set(1.5);
            metrics::histogram!("a.b.elapsed_time", "status" => "OK").record(3.25);
        });
        for pusher in pushers {
            running.spawn(pusher.run(registry.clone()));
        }
        let mut text = String::new();
        let mut packet = [0; 2_048];
        while !text.contains("elapsed_time") {
            let count = daemon.recv(&mut packet).await.unwrap();
            text.push_str(std::str::from_utf8(&packet[..count]).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn lines_are_those_of_the_dialect() {
        let statsd = received(Dialect::Statsd).await;
        for line in [
            "spire_server.a.b.OK:2.000000|c\n",
            "spire_server.g:1.500000|g\n",
            "spire_server.a.b.elapsed_time.OK:3.250000|ms\n",
        ] {
            assert!(statsd.contains(line), "{statsd}");
        }
        let dog = received(Dialect::DogStatsd).await;
        for line in [
            "spire_server.a.b:2|c|#status:OK\n",
            "spire_server.g:1.5|g\n",
            "spire_server.a.b.elapsed_time:3.25|ms|#status:OK\n",
        ] {
            assert!(dog.contains(line), "{dog}");
        }
    }

    #[tokio::test]
    async fn without_a_daemon_lines_are_dropped() {
        let target = PushTarget { dialect: Dialect::Statsd, address: "127.0.0.1:1".to_owned() };
        let (registry, pushers) = Registry::with_push(MetricsConfig::default(), vec![target]);
        with_local_recorder(&registry, || {
            let counter = metrics::counter!("c");
            (0..MAX_WAITING * 2).for_each(|_| counter.increment(1));
        });
        assert!(registry.render().contains(&format!("c {}", MAX_WAITING * 2)));
        drop(pushers);
    }
}
