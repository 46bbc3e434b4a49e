//! The second stage: texts become values, and every problem is found.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use executor_protocol::{DEFAULT_LIMITS, Limits};
use ipfs::Url;

use super::{
    Chain, Config, Content, Key, Log, LogFormat, Needs, Problem, Problems, Raw, Runtime, Secret,
    Server, Work, file,
    raw::Origin,
    setting::{Preset, Setting},
    value,
};
use crate::telemetry::causes;

/// Checks every setting; `problems` are those that were found before.
pub fn check(raw: &Raw, needs: Needs, problems: Vec<Problem>) -> Result<Config, Problems> {
    let mut checker = Checker { raw, problems };
    let config = checker.config(needs);
    match config {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(Problems(checker.problems)),
    }
}

struct Checker<'a> {
    raw: &'a Raw,
    problems: Vec<Problem>,
}

const NUMBER: &str = "a whole number that is not negative";

impl Checker<'_> {
    /// A setting's text, or its default's; none when there is neither.
    fn text(&self, name: &str) -> Option<(String, Origin)> {
        match self.raw.get(name) {
            Some((text, origin)) if !text.trim().is_empty() => {
                Some((text.trim().to_owned(), origin.clone()))
            }
            _ => match Setting::named(name)?.preset {
                Preset::Text(text) => Some((text.to_owned(), Origin::Preset)),
                Preset::Unset(_) => None,
            },
        }
    }

    fn problem(&mut self, name: &str, value: Option<&str>, wanted: &str) {
        let Some(setting) = Setting::named(name) else { return };
        let origin = self.raw.get(name).map_or(Origin::Preset, |(_, origin)| origin.clone());
        let value =
            value.map(
                |text| {
                    if setting.is_shown() { text.to_owned() } else { "(not shown)".to_owned() }
                },
            );
        let name = origin.name_of(setting);
        self.problems.push(Problem { name, value, wanted: wanted.to_owned() });
    }

    /// Reads a setting; none when it is not set, or after a problem.
    fn optional<T>(
        &mut self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, _) = self.text(name)?;
        let read = read(&text);
        if read.is_none() {
            self.problem(name, Some(&text), wanted);
        }
        read
    }

    /// Reads a setting that has a default; `T::default()` stands for it after a problem.
    fn required<T: Default>(
        &mut self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        self.optional(name, wanted, read).unwrap_or_default()
    }

    fn number<T: FromStr + Default>(&mut self, name: &str) -> T {
        self.required(name, NUMBER, |text| text.parse().ok())
    }

    fn positive<T: FromStr + Default + PartialEq>(&mut self, name: &str) -> T {
        self.required(name, "a whole number from 1", |text| {
            text.parse().ok().filter(|number| *number != T::default())
        })
    }

    fn duration(&mut self, name: &str) -> std::time::Duration {
        self.required(name, value::DURATION, value::duration)
    }

    /// A duration that is not zero.
    fn span(&mut self, name: &str) -> std::time::Duration {
        let wanted = format!("{}; not 0", value::DURATION);
        self.required(name, &wanted, |text| value::duration(text).filter(|span| !span.is_zero()))
    }

    fn bytes(&mut self, name: &str) -> u64 {
        self.required(name, value::BYTES, value::bytes)
    }

    fn path(&mut self, name: &str) -> PathBuf {
        self.required(name, "a path", |text| Some(PathBuf::from(text)))
    }

    fn urls(&mut self, name: &str, schemes: &[&str]) -> Vec<Url> {
        let Some((text, _)) = self.text(name) else { return Vec::new() };
        let wanted = format!("URLs with the scheme {}, comma-separated", schemes.join(" or "));
        let mut urls = Vec::new();
        for part in value::list(&text) {
            match url(part, schemes) {
                Some(url) => urls.push(url),
                None => self.problem(name, Some(part), &wanted),
            }
        }
        urls
    }

    fn config(&mut self, needs: Needs) -> Option<Config> {
        let data_dir = self.path("data_dir");
        let database =
            self.optional("database_url", "sqlite: and a path (mysql: is not built yet)", |text| {
                let path = text.strip_prefix("sqlite:")?;
                let path = path.strip_prefix("//").unwrap_or(path);
                (!path.is_empty()).then(|| PathBuf::from(path))
            });
        for name in ["namespace", "executor_image", "job_template"] {
            // Their runtime is not built: any text will do.
            self.required(name, "a text", |text| Some(text.to_owned()));
        }
        let database = database.unwrap_or_else(|| data_dir.join("coordinator.sqlite"));
        let log = self.log();
        let retention = self.duration("retention");
        let content = self.content();
        let chain = self.chain(needs);
        let work = self.work();
        let server = self.server(needs);
        let api = self.optional("api", "a URL with the scheme http or https", |text| {
            url(text, &["http", "https"])
        });
        Some(Config {
            data_dir,
            database,
            log,
            retention,
            content,
            chain,
            work: work?,
            server: server?,
            api: api?,
        })
    }

    fn log(&mut self) -> Log {
        Log {
            filter: self.required(
                "log",
                "a level (error, warn, info, debug, trace), or directives such as info,coordinator=debug",
                |text| {
                    tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned())
                },
            ),
            format: self.required("log_format", "text or json", |text| match text {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            }),
        }
    }

    fn content(&mut self) -> Content {
        let http = ["http", "https"];
        Content {
            gateways: self.urls("ipfs_endpoint", &http),
            mirror: self.path("ipfs_mirror"),
            api: self.optional("ipfs_api", "a URL with the scheme http or https", |text| {
                url(text, &http)
            }),
            timeouts: ipfs::Timeouts {
                connect: self.span("ipfs_connect_timeout"),
                idle: self.span("ipfs_idle_timeout"),
                total: self.span("ipfs_total_timeout"),
            },
            probe_interval: self.span("ipfs_probe_interval"),
            cache_bytes: self.bytes("cache_bytes"),
            deadline: self.duration("content_deadline"),
        }
    }

    fn chain(&mut self, needs: Needs) -> Chain {
        let endpoints = self.urls("rpc_url", &["http", "https", "ws", "wss"]);
        let contract =
            self.optional("contract", "an address: 0x and 40 hex digits", |text| text.parse().ok());
        let was_set = |checker: &Self, name: &str| checker.text(name).is_some();
        if endpoints.is_empty() && needs.endpoint && !was_set(self, "rpc_url") {
            self.problem("rpc_url", Some(""), "the URL of a chain endpoint: this needs one");
        }
        let needs_contract = needs.contract || (needs.serves && !endpoints.is_empty());
        if contract.is_none() && needs_contract && !was_set(self, "contract") {
            self.problem("contract", Some(""), "the TaskBoard's address: this needs one");
        }
        let (key, client_key) = self.keys(needs);
        Chain {
            endpoints,
            contract,
            key,
            client_key,
            confirmations: self.optional(
                "confirmations",
                "a number of blocks from 1, safe or finalized",
                |text| text.parse().ok(),
            ),
            from_block: self.optional("from_block", NUMBER, |text| text.parse().ok()),
            poll_interval: self.optional("poll_interval", value::DURATION, |text| {
                value::duration(text).filter(|pause| !pause.is_zero())
            }),
            domains: self.required("domains", "numbers from 0 to 65535, comma-separated", |text| {
                value::list(text).map(|part| part.parse().ok()).collect()
            }),
            max_fee_wei_per_gas: self.positive("max_fee_wei_per_gas"),
            tip_wei_per_gas: self.number("tip_wei_per_gas"),
            resubmit_after: self.span("resubmit_after"),
            rights_grace: self.span("rights_grace"),
            withdraw_to: self.optional(
                "withdraw_to",
                "an address: 0x and 40 hex digits, not all of them 0",
                |text| text.parse().ok().filter(|address: &task::Address| address.0 != [0; 20]),
            ),
        }
    }

    /// Both keys as far as they are needed; the publisher's is also read to see that the client's is another one.
    fn keys(&mut self, needs: Needs) -> (Option<Key>, Option<Key>) {
        for (key, file) in [("key", "key_file"), ("client_key", "client_key_file")] {
            if self.text(key).is_some() && self.text(file).is_some() {
                self.problem(key, None, "either this or the variable with _FILE, not both");
            }
        }
        let client = if needs.client_key || needs.serves { self.key("client_key") } else { None };
        let publisher = if needs.serves || (needs.client_key && client.is_some()) {
            self.key("key")
        } else {
            None
        };
        let missing = self.text("client_key").or_else(|| self.text("client_key_file")).is_none();
        if needs.client_key && missing {
            self.problem(
                "client_key",
                Some(""),
                "the key that signs this, here or in the variable with _FILE",
            );
        }
        if let (Some(client), Some(publisher)) = (&client, &publisher)
            && client.is_same(publisher)
        {
            self.problem("client_key", None, "a key that is not the publisher's");
        }
        (publisher, client)
    }

    fn key(&mut self, name: &str) -> Option<Key> {
        const HEX: &str = "64 hex digits, with or without 0x";
        let parse = |text: &str| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            (digits.len() == 64).then(|| Key::from_hex(text).ok()).flatten()
        };
        if self.text(name).is_some() {
            return self.optional(name, HEX, parse);
        }
        let setting = format!("{name}_file");
        let (path, _) = self.text(&setting)?;
        let password_file = format!("{name}_password_file");
        let password = match self.text(&password_file) {
            None => None,
            Some((path, _)) => match file::text(Path::new(&path)) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(wanted) => {
                    self.problem(&password_file, Some(&path), &wanted);
                    return None;
                }
            },
        };
        if let Err(wanted) = file::guarded(Path::new(&path)) {
            self.problem(&setting, Some(&path), &wanted);
            return None;
        }
        match Key::from_file(Path::new(&path), password.as_ref().map(Secret::expose)) {
            Ok(key) => Some(key),
            Err(error) => {
                let wanted = format!(
                    "a file with {HEX}, or a keystore and its password in the variable with \
                     _PASSWORD_FILE ({})",
                    causes(&error)
                );
                self.problem(&setting, Some(&path), &wanted);
                None
            }
        }
    }

    fn work(&mut self) -> Option<Work> {
        let runtime = self.optional(
            "runtime",
            "auto or process (runtime_not_built: docker and kubernetes are not part of this version)",
            |text| match text {
                "auto" => Some(Runtime::Process { chosen: true }),
                "process" => Some(Runtime::Process { chosen: false }),
                _ => None,
            },
        );
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let concurrency = self.optional("concurrency", "a number from 1 to 1024", |text| {
            text.parse().ok().filter(|number| (1..=1024).contains(number))
        });
        let module_bytes = self.bytes("max_module_bytes");
        let mut limits = |timeout: &str, memory: &str, fuel: &str| Limits {
            timeout_ms: u64::try_from(self.span(timeout).as_millis()).unwrap_or(u64::MAX),
            memory_mib: self.positive(memory),
            fuel: self.positive(fuel),
            module_bytes,
            ..DEFAULT_LIMITS
        };
        let defaults = limits("default_timeout", "default_memory_mib", "default_fuel");
        let maxima = limits("max_timeout", "max_memory_mib", "max_fuel");
        for (name, default, most) in [
            ("default_timeout", defaults.timeout_ms, maxima.timeout_ms),
            ("default_memory_mib", defaults.memory_mib.into(), maxima.memory_mib.into()),
            ("default_fuel", defaults.fuel, maxima.fuel),
        ] {
            if default > most && most > 0 {
                let text = self.text(name).map(|(text, _)| text);
                let wanted = format!("at most what {} says", name.replace("default", "max"));
                self.problem(name, text.as_deref(), &wanted);
            }
        }
        Some(Work {
            runtime: runtime?,
            executor: self.optional("executor", "a path", |text| Some(PathBuf::from(text))),
            concurrency: concurrency.unwrap_or_else(cores),
            retries: self.number("retries"),
            compiled_cache_bytes: self.bytes("compiled_cache_bytes"),
            defaults,
            maxima,
            max_input_bytes: self.bytes("max_input_bytes"),
            min_fee_wei: self.number("min_fee_wei"),
            quota: self.number("quota"),
            quota_run_time: self.duration("quota_run_time"),
            rejection_budget_wei: self
                .optional("rejection_budget", NUMBER, |text| text.parse().ok()),
        })
    }

    fn server(&mut self, needs: Needs) -> Option<Server> {
        let listen: Option<SocketAddr> = self.optional(
            "listen",
            "an IP address and a port, for example 127.0.0.1:8480",
            |text| text.parse().ok(),
        );
        let (tokens, token_file) = self.tokens();
        if let Some(listen) = listen
            && needs.serves
            && !listen.ip().is_loopback()
            && self.text("api_token_file").is_none()
        {
            self.problem(
                "listen",
                Some(&listen.to_string()),
                "an address of the loopback interface, or any with COORDINATOR_API_TOKEN_FILE",
            );
        }
        Some(Server {
            listen: listen?,
            tokens,
            token_file,
            connections: self.positive("api_connections"),
            header_timeout: self.span("api_header_timeout"),
        })
    }

    fn tokens(&mut self) -> (Vec<Secret>, Option<PathBuf>) {
        let Some((path, _)) = self.text("api_token_file") else { return (Vec::new(), None) };
        let tokens = file::tokens(Path::new(&path)).unwrap_or_else(|wanted| {
            self.problem("api_token_file", Some(&path), &wanted);
            Vec::new()
        });
        (tokens, Some(path.into()))
    }
}

fn url(text: &str, schemes: &[&str]) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (schemes.contains(&url.scheme()) && url.has_host()).then_some(url)
}
