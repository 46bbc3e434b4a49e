//! The settings themselves, in the order of the documentation.

use super::setting::{
    Preset::{self, Text, Unset},
    Setting, Sources,
};

const fn open(
    group: &'static str,
    name: &'static str,
    value: &'static str,
    preset: Preset,
    help: &'static str,
) -> Setting {
    Setting { name, group, value, preset, help, sources: Sources::Open }
}

const fn with(sources: Sources, setting: Setting) -> Setting {
    Setting { sources, ..setting }
}

const GENERAL: &str = "Settings: general";
const CONTENT: &str = "Settings: content";
const CHAIN: &str = "Settings: chain";
const WORK: &str = "Settings: work";
const SERVER: &str = "Settings: server";

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    // ---- general
    with(
        Sources::Locator,
        open(
            GENERAL,
            "config",
            "FILE",
            Unset("none"),
            "configuration file (TOML, one key for each setting)",
        ),
    ),
    open(GENERAL, "data_dir", "DIR", Text("./data"), "database and caches of this coordinator"),
    open(
        GENERAL,
        "database_url",
        "URL",
        Unset("`coordinator.sqlite` in the data folder"),
        "the database, `sqlite:PATH`",
    ),
    open(
        GENERAL,
        "log",
        "FILTER",
        Text("info"),
        "what is logged: a level, or directives such as `info,coordinator=debug`",
    ),
    open(
        GENERAL,
        "log_format",
        "FORMAT",
        Text("text"),
        "`text` or `json`, one line for each event, on stderr",
    ),
    open(
        GENERAL,
        "retention",
        "TIME",
        Text("30d"),
        "how long finished tasks stay; caches are bounded by size",
    ),
    // ---- content
    open(
        CONTENT,
        "ipfs_endpoint",
        "URLS",
        Unset("empty: the mirror is used"),
        "roots of IPFS gateways, for example `http://127.0.0.1:18480/ipfs`, comma-separated, in the order they are asked",
    ),
    open(
        CONTENT,
        "ipfs_mirror",
        "DIR",
        Text("./host/wasm"),
        "local folder used as a content store",
    ),
    open(
        CONTENT,
        "ipfs_api",
        "URL",
        Unset("empty: added files go into the mirror"),
        "root of a Kubo RPC API, for adding",
    ),
    open(
        CONTENT,
        "ipfs_connect_timeout",
        "TIME",
        Text("5s"),
        "longest wait for a connection to a gateway",
    ),
    open(CONTENT, "ipfs_idle_timeout", "TIME", Text("30s"), "longest silence of a gateway"),
    open(
        CONTENT,
        "ipfs_total_timeout",
        "TIME",
        Text("5m"),
        "longest attempt at one file; the next one goes on with the blocks that it got",
    ),
    open(
        CONTENT,
        "ipfs_probe_interval",
        "TIME",
        Text("30s"),
        "pause between two looks whether gateways, mirror, RPC and cache work",
    ),
    open(CONTENT, "cache_bytes", "BYTES", Text("1GiB"), "room for fetched content on the disk"),
    open(
        CONTENT,
        "content_deadline",
        "TIME",
        Text("1h"),
        "how long content that is proved to be missing or wrong is tried again, whatever deadline the task names",
    ),
    // ---- chain
    open(
        CHAIN,
        "rpc_url",
        "URLS",
        Unset("empty: the placeholder task source"),
        "chain endpoints, HTTP or WebSocket, comma-separated",
    ),
    open(CHAIN, "contract", "ADDRESS", Unset("empty"), "address of the TaskBoard"),
    with(
        Sources::Secret,
        open(
            CHAIN,
            "key",
            "HEX",
            Unset("empty: read-only, nothing is published"),
            "the publisher's private key",
        ),
    ),
    with(
        Sources::Guarded,
        open(
            CHAIN,
            "key_file",
            "FILE",
            Unset("empty"),
            "file with the publisher's key in hex, or a keystore",
        ),
    ),
    with(
        Sources::Guarded,
        open(
            CHAIN,
            "key_password_file",
            "FILE",
            Unset("empty"),
            "file with the password of the publisher's keystore",
        ),
    ),
    with(
        Sources::Secret,
        open(
            CHAIN,
            "client_key",
            "HEX",
            Unset("empty"),
            "the private key that deploys, submits and cancels",
        ),
    ),
    with(
        Sources::Guarded,
        open(
            CHAIN,
            "client_key_file",
            "FILE",
            Unset("empty"),
            "file with that key in hex, or a keystore",
        ),
    ),
    with(
        Sources::Guarded,
        open(
            CHAIN,
            "client_key_password_file",
            "FILE",
            Unset("empty"),
            "file with the password of that keystore",
        ),
    ),
    open(
        CHAIN,
        "confirmations",
        "DEPTH",
        Unset("1 on development chains (31337, 1337), else `finalized`"),
        "when a block counts: a number of blocks, `safe` or `finalized`",
    ),
    open(
        CHAIN,
        "from_block",
        "NUMBER",
        Unset("the contract's own block"),
        "first block that is read",
    ),
    open(
        CHAIN,
        "poll_interval",
        "TIME",
        Unset("by the chain"),
        "pause between two looks at the chain",
    ),
    open(
        CHAIN,
        "domains",
        "NUMBERS",
        Unset("empty: all that the publisher's key may answer; without a key all"),
        "domains whose tasks are taken, by index, comma-separated",
    ),
    open(
        CHAIN,
        "max_fee_wei_per_gas",
        "WEI",
        Text("500000000000"),
        "most that is paid for a unit of gas",
    ),
    open(
        CHAIN,
        "tip_wei_per_gas",
        "WEI",
        Text("1000000000"),
        "most of it that goes to the block's builder",
    ),
    open(
        CHAIN,
        "resubmit_after",
        "TIME",
        Text("30s"),
        "how long a transaction may wait before it is sent again with a higher fee",
    ),
    open(
        CHAIN,
        "rights_grace",
        "TIME",
        Text("1h"),
        "how long results wait when the owner has withdrawn the right to publish them",
    ),
    open(
        CHAIN,
        "withdraw_to",
        "ADDRESS",
        Unset("the publisher's own address"),
        "who is paid when the publisher's earnings are withdrawn",
    ),
    // ---- work
    open(
        WORK,
        "runtime",
        "NAME",
        Text("auto"),
        "what runs a task: `auto`, `process`, `docker` or `kubernetes`; this version has `process`",
    ),
    open(
        WORK,
        "executor",
        "FILE",
        Unset("`executor` beside this program"),
        "the executor's binary",
    ),
    open(WORK, "concurrency", "NUMBER", Unset("number of cores"), "tasks at once"),
    open(
        WORK,
        "retries",
        "NUMBER",
        Text("5"),
        "how often a step is tried again when the infrastructure failed",
    ),
    open(
        WORK,
        "compiled_cache_bytes",
        "BYTES",
        Text("1GiB"),
        "size of the cache of compiled modules",
    ),
    open(
        WORK,
        "default_timeout",
        "TIME",
        Text("30s"),
        "wall-clock limit of a task that names none",
    ),
    open(WORK, "default_memory_mib", "MIB", Text("256"), "memory limit of a task that names none"),
    open(
        WORK,
        "default_fuel",
        "NUMBER",
        Text("10000000000"),
        "fuel of a task that names none, about one unit for each instruction",
    ),
    open(
        WORK,
        "max_timeout",
        "TIME",
        Text("5m"),
        "longest wall-clock limit that a task may ask for",
    ),
    open(WORK, "max_memory_mib", "MIB", Text("1024"), "largest memory that a task may ask for"),
    open(WORK, "max_fuel", "NUMBER", Text("1000000000000"), "most fuel that a task may ask for"),
    open(WORK, "max_module_bytes", "BYTES", Text("16MiB"), "largest module"),
    open(WORK, "max_input_bytes", "BYTES", Text("16MiB"), "largest input"),
    open(WORK, "min_fee_wei", "WEI", Text("0"), "smallest fee of a task; 0 takes free ones"),
    open(
        WORK,
        "quota",
        "NUMBER",
        Text("1000"),
        "free tasks that one requester may submit in an hour",
    ),
    open(
        WORK,
        "quota_run_time",
        "TIME",
        Text("30m"),
        "run time that the free tasks may take which one requester submits in an hour",
    ),
    open(
        WORK,
        "rejection_budget",
        "WEI",
        Unset("1 ether on development chains (31337, 1337), else 0"),
        "what may be spent in a day on publishing rejections that no fee pays for, in wei; 0 publishes none",
    ),
    open(
        WORK,
        "namespace",
        "NAME",
        Text("default"),
        "namespace of Jobs and ConfigMaps (kubernetes, not built yet)",
    ),
    open(
        WORK,
        "executor_image",
        "IMAGE",
        Text("executor-demo/executor:demo"),
        "executor image (docker and kubernetes, not built yet)",
    ),
    open(
        WORK,
        "job_template",
        "FILE",
        Text("k8s/job.yaml"),
        "the Job template (kubernetes, not built yet)",
    ),
    // ---- server
    open(
        SERVER,
        "listen",
        "ADDRESS",
        Text("127.0.0.1:8480"),
        "HTTP address; one beyond loopback needs bearer tokens",
    ),
    with(
        Sources::Guarded,
        open(
            SERVER,
            "api_token_file",
            "FILE",
            Unset("empty"),
            "file with bearer tokens, one a line; `status` and `watch` send the first",
        ),
    ),
    open(
        SERVER,
        "api_connections",
        "NUMBER",
        Text("256"),
        "connections to the HTTP address at once; more wait",
    ),
    open(
        SERVER,
        "api_header_timeout",
        "TIME",
        Text("10s"),
        "how long a connection may take to send a request's head, also between two requests",
    ),
    open(
        SERVER,
        "api",
        "URL",
        Text("http://127.0.0.1:8480"),
        "where `status`, `watch`, `logs` and `submit --wait` find a coordinator",
    ),
];
