//! Metrics by the OpenTelemetry protocol: a real receiver decodes what the real program sends.

use std::io::BufReader;
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsDouble;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, NumberDataPoint};
use prost::Message as _;
use tallymark::model::clock::Stopwatch;

use crate::support::cli::{Ended, PASSWORD, Place, daily, ended};
use crate::support::http::{Request, respond};
use crate::support::listening::Listening;
use crate::support::serving::{LIMIT, Server};

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Takes,
    IsDown,
    NeverAnswers,
}

/// A receiver of metrics.
struct Receiver {
    server: Listening,
    manner: Arc<Mutex<Manner>>,
    /// The requests that it took.
    taken: Arc<Mutex<Vec<Request>>>,
}

/// What a message says.
#[derive(Debug)]
struct Heard {
    message: ExportMetricsServiceRequest,
}

impl Receiver {
    fn start() -> Self {
        let manner = Arc::new(Mutex::new(Manner::Takes));
        let taken = Arc::<Mutex<Vec<_>>>::default();
        let (now, list) = (Arc::clone(&manner), Arc::clone(&taken));
        let server = Listening::start(move |client: TcpStream| {
            let mut reader = BufReader::new(&client);
            while let Some(request) = Request::read(&mut reader) {
                let manner = *now.lock().unwrap();
                let status = match manner {
                    Manner::Takes => "200 OK",
                    Manner::IsDown => "503 Service Unavailable",
                    Manner::NeverAnswers => {
                        // The client gives up first.
                        while Request::read(&mut reader).is_some() {}
                        return;
                    }
                };
                if manner == Manner::Takes {
                    list.lock().unwrap().push(request);
                }
                if respond(&client, status, "", b"").is_none() {
                    return;
                }
            }
        });
        Self { server, manner, taken }
    }

    fn is(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Lets a command know it, with a key that no output may show.
    fn known_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", self.server.endpoint())
            .env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-key={PASSWORD}"))
            .env("OTEL_SERVICE_NAME", "shop")
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Ended {
        ended(self.known_to(&mut place.command(arguments)))
    }

    /// The messages since the last call.
    fn heard(&self) -> Vec<Heard> {
        let taken = std::mem::take(&mut *self.taken.lock().unwrap());
        let decoded = taken.into_iter().map(|request| {
            assert_eq!((&*request.method, &*request.path), ("POST", "/v1/metrics"));
            assert_eq!(request.headers["content-type"], "application/x-protobuf");
            assert_eq!(request.headers["x-key"], PASSWORD);
            let message = ExportMetricsServiceRequest::decode(&*request.body).unwrap();
            Heard { message }
        });
        decoded.collect()
    }
}

impl Heard {
    fn attribute(&self, name: &str) -> Option<&str> {
        let resource = self.message.resource_metrics[0].resource.as_ref().unwrap();
        let found = resource.attributes.iter().find(|attribute| attribute.key == name)?;
        match found.value.as_ref()?.value.as_ref()? {
            StringValue(text) => Some(text),
            other => panic!("{other:?}"),
        }
    }

    /// The points of a metric, and the temporality of a counter.
    fn points(&self, name: &str) -> (&[NumberDataPoint], Option<AggregationTemporality>) {
        let metrics = &self.message.resource_metrics[0].scope_metrics[0].metrics;
        let metric = metrics.iter().find(|metric| metric.name == name);
        match metric.and_then(|metric| metric.data.as_ref()) {
            None => (&[], None),
            Some(Data::Gauge(gauge)) => (&gauge.data_points, None),
            Some(Data::Sum(sum)) => (&sum.data_points, Some(sum.aggregation_temporality())),
            Some(other) => panic!("{other:?}"),
        }
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let value = |point: &NumberDataPoint| match point.value {
            Some(AsDouble(value)) => value,
            _ => panic!("{point:?}"),
        };
        self.points(name).0.iter().map(value).collect()
    }
}

/// Ticks of their own processes, and of one that stays. The receiver is up, down and silent, and no
/// tick takes notice of that.
#[tokio::test]
async fn metrics_reach_a_receiver_and_no_tick_waits_for_it() {
    let (place, _database) = Place::with_events(2).await;
    place.configure(&format!("[checkpoint]\nstore = \"postgres\"\n{}", daily(2)));
    let receiver = Receiver::start();
    receiver.run(&place, &["init"]).good();
    assert_eq!(receiver.heard().len(), 0, "only ticks are told");

    receiver.run(&place, &["run"]).good();
    let heard = receiver.heard();
    let [tick] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(tick.attribute("service.name"), Some("shop"));
    assert_eq!(tick.attribute("service.version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(tick.values("tallymark.slices_succeeded"), [2.0]);
    assert_eq!(tick.values("tallymark.rows_read"), [480.0]);
    assert_eq!(tick.values("tallymark.watermark_lag"), [2.0 * 86_400.0]);
    assert_eq!(tick.values("tallymark.ticks"), [1.0, 0.0]);
    let (points, temporality) = tick.points("tallymark.slices_succeeded");
    assert_eq!(temporality, Some(AggregationTemporality::Delta));
    assert!(points[0].start_time_unix_nano < points[0].time_unix_nano, "{points:?}");
    assert_eq!(tick.points("tallymark.slices_due").1, None);

    receiver.is(Manner::IsDown);
    let down = receiver.run(&place, &["run"]).good();
    assert!(down.err.contains("metrics were not sent"), "{down:?}");
    assert!(down.err.contains("answers with status 503"), "{down:?}");
    receiver.is(Manner::NeverAnswers);
    let silent = receiver.run(&place, &["run", "--budget", "2s"]).good();
    assert!(silent.err.contains("gave no answer in time"), "{silent:?}");
    receiver.is(Manner::Takes);
    let mut other = place.command(&["run"]);
    let other = ended(receiver.known_to(&mut other).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"));
    assert!(other.good().err.contains("no metrics are sent"));
    assert_eq!(receiver.heard().len(), 0);

    stays(&place, &receiver).await;

    place.sql("DROP TABLE tallymark.checkpoint").await;
    assert_ne!(receiver.run(&place, &["run"]).code, Some(0));
    let heard = receiver.heard();
    let [failed] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(failed.values("tallymark.ticks"), [0.0, 1.0]);
}

/// A process that stays tells sums: what was not taken is in the next message.
async fn stays(place: &Place, receiver: &Receiver) {
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0"]);
    // What is not taken is sent again within a second.
    receiver.known_to(&mut command).env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
    command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000");
    let server = Server::of(command);
    let mut heard = Vec::new();
    for (ticks, manner) in [(1.0, Manner::Takes), (2.0, Manner::NeverAnswers)] {
        receiver.is(manner);
        server.send("GET /tick HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap().is(200);
        receiver.is(Manner::Takes);
        let watch = Stopwatch::start();
        let is_told = |heard: &[Heard]| {
            heard.last().is_some_and(|it| it.values("tallymark.ticks") == [ticks, 0.0])
        };
        while !is_told(&heard) {
            assert!(watch.elapsed() < LIMIT, "{heard:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            heard.extend(receiver.heard());
        }
    }
    // What it says in the end, if it has the time, is of the same kind.
    server.signal("TERM");
    server.end().await;
    heard.extend(receiver.heard());
    let last = heard.last().unwrap();
    assert_eq!(last.values("tallymark.failing"), [0.0]);
    let instance = last.attribute("service.instance.id");
    assert!(instance.is_some());
    let began = last.points("tallymark.ticks").0[0].start_time_unix_nano;
    for message in &heard {
        assert_eq!(message.attribute("service.instance.id"), instance);
        let (points, temporality) = message.points("tallymark.ticks");
        assert_eq!(temporality, Some(AggregationTemporality::Cumulative));
        assert_eq!(points[0].start_time_unix_nano, began);
    }
}
