//! The whole: fetch by CID through cache, mirror and gateways; add to Kubo or the mirror.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use crate::block::Blocks;
use crate::budget::{Budget, Timeouts};
use crate::cache::{Cache, Content};
use crate::cid::{Cid, CidVersion};
use crate::error::{Error, blocking};
use crate::gateway::{Gateway, client};
use crate::health::{Fault, Place, PlaceKind, PlaceState, Pulse};
use crate::import::{cid_of_bytes, cid_of_file, raw_cid};
use crate::kubo::Kubo;
use crate::mirror::Mirror;
use crate::shelf::{Shelf, Tray};
use crate::walk;

/// Most bytes of one raw block that [`Store::put_raw`] takes: 1 MiB, which every node exchanges.
pub const MAX_RAW_BYTES: usize = 1 << 20;

/// Where content comes from, goes to and is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Gateway roots such as `http://127.0.0.1:18480/ipfs`, asked in this order for each block.
    pub gateways: Vec<Url>,
    /// A folder whose files are the content when there is no gateway, and that takes what is added when there is no
    /// RPC. With gateways, only what was added to it is read from it.
    pub mirror: Option<PathBuf>,
    /// Kubo's RPC root such as `http://127.0.0.1:18501`; what is added goes there.
    pub api: Option<Url>,
    /// The cache's folder, made if it is missing; processes may share one.
    pub cache: PathBuf,
    /// Bytes of the disk that the cache may take; above, what was not used for longest goes. Default 1 GiB.
    pub cache_bytes: u64,
    /// How long the network may take.
    pub timeouts: Timeouts,
    /// How often places are looked at to see whether they work; none: never, and what is known comes from use alone.
    /// Default none.
    pub probe_every: Option<Duration>,
    /// Blocks of one fetch that are asked for ahead of their turn. Default 8; 0 is one after another.
    pub prefetch: usize,
}

impl Options {
    /// The defaults with a cache in this folder and no sources yet.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            gateways: Vec::new(),
            mirror: None,
            api: None,
            cache: cache.into(),
            cache_bytes: 1 << 30,
            timeouts: Timeouts::default(),
            probe_every: None,
            prefetch: 8,
        }
    }
}

type Flight = Arc<OnceCell<Result<Content, Error>>>;

/// A content store. Clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    blocks: Arc<Blocks>,
    cache: Arc<Cache>,
    cache_pulse: Pulse,
    mirror_pulse: Pulse,
    shelf: Arc<Shelf>,
    kubo: Option<Kubo>,
    options: Options,
    /// Looks at the places from time to time; ends with this.
    _watch: Option<AbortOnDropHandle<()>>,
    /// Fetches under way, so that each content is fetched once however many ask for it.
    flights: Mutex<HashMap<(Cid, Budget), Flight>>,
}

impl Store {
    /// Opens the cache and mirror. Of the network nothing is asked, unless places are to be looked at: that begins.
    ///
    /// # Errors
    /// `invalid_url`, `io`.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let client = client(&options.timeouts)?;
        let gateways = options
            .gateways
            .iter()
            .map(|root| Ok(Arc::new(Gateway::new(root, client.clone(), options.timeouts)?)))
            .collect::<Result<Vec<_>, _>>()?;
        let kubo = options
            .api
            .as_ref()
            .map(|root| Kubo::new(root, client, options.timeouts))
            .transpose()?;
        let folder = options.cache.clone();
        let (options, mirror, cache) = blocking("opening", &folder, move || {
            let plain_files = options.gateways.is_empty();
            let memory = options.cache.join("mirror");
            let mirror =
                options.mirror.as_deref().map(|root| Mirror::open(root, plain_files, &memory));
            let mirror = mirror.transpose()?;
            // The rest is for the blocks of what is not whole yet.
            let cache = Cache::open(&options.cache, options.cache_bytes - options.cache_bytes / 8)?;
            Ok((options, mirror, cache))
        })
        .await?;
        let blocks = Blocks {
            mirror,
            gateways,
            timeouts: options.timeouts,
            may_probe: options.probe_every.is_some(),
        };
        let shelf = Shelf::new(options.cache.join("block"), options.cache_bytes / 8);
        Ok(Self(Arc::new_cyclic(|inner| Inner {
            blocks: Arc::new(blocks),
            cache: Arc::new(cache),
            cache_pulse: Pulse::default(),
            mirror_pulse: Pulse::default(),
            shelf: Arc::new(shelf),
            kubo,
            _watch: options.probe_every.map(|pause| {
                AbortOnDropHandle::new(tokio::spawn(watch(Weak::clone(inner), pause)))
            }),
            options,
            flights: Mutex::default(),
        })))
    }

    /// What is known of the places: gateways in their order, then mirror, RPC and cache. Asks nothing.
    pub fn health(&self) -> Vec<Place> {
        let inner = &self.0;
        let mut places: Vec<_> =
            inner.blocks.gateways.iter().map(|gateway| gateway.place()).collect();
        if let Some(mirror) = &inner.blocks.mirror {
            places.push(inner.mirror_pulse.place(PlaceKind::Mirror, mirror.name()));
        }
        places.extend(inner.kubo.as_ref().map(Kubo::place));
        let cache = inner.options.cache.display().to_string();
        places.push(inner.cache_pulse.place(PlaceKind::Cache, cache));
        places
    }

    /// Looks at all places now and answers what [`health`](Self::health) then says.
    pub async fn probe(&self) -> Vec<Place> {
        self.0.probe().await;
        self.health()
    }

    /// The verified content of a file by its CID, from the cache if it is there. Content in the cache was within the
    /// budget of blocks, nodes and depth under which it came; its size is held against this one's.
    ///
    /// # Errors
    /// Any but `invalid_cid`, `cid_differs` and `rpc_failed`; [`Error::retry`] tells what may pass.
    pub async fn fetch(&self, cid: &Cid, budget: &Budget) -> Result<Content, Error> {
        let key = (cid.as_v1(), *budget);
        let flight = {
            let mut flights = self.flights();
            Arc::clone(flights.entry(key.clone()).or_default())
        };
        // When the one that fetches is dropped, the next one waiting takes over.
        let result = flight.get_or_init(|| self.load(cid, budget)).await.clone();
        let mut flights = self.flights();
        if flights.get(&key).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
            flights.remove(&key);
        }
        result
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<(Cid, Budget), Flight>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load(&self, cid: &Cid, budget: &Budget) -> Result<Content, Error> {
        if let Some(content) = self.cached(cid).await? {
            if content.size_bytes() > budget.expanded_bytes {
                return Err(Error::TooLarge {
                    cid: cid.clone(),
                    limit_bytes: budget.expanded_bytes,
                });
            }
            return Ok(content);
        }
        let inner = &self.0;
        let folder = &inner.options.cache;
        let cache = Arc::clone(&inner.cache);
        let draft = blocking("creating a draft", folder, move || cache.draft()).await?;
        let limit = inner.options.timeouts.total;
        let tray = Tray::new(&inner.shelf);
        let prefetch = inner.options.prefetch;
        let walk = walk::expand(&inner.blocks, cid, budget, prefetch, Some(&tray), draft);
        let walked = tokio::time::timeout(limit, walk).await.unwrap_or_else(|_| {
            let error = Error::TotalTimeout { cid: cid.clone(), limit };
            Err(if inner.blocks.has_working_gateway() {
                Error::NotServed(Box::new(error))
            } else {
                error
            })
        });
        let (cache, owned) = (Arc::clone(&inner.cache), cid.clone());
        let saved = match walked {
            Ok(draft) => blocking("saving", folder, move || cache.insert(&owned, draft)).await,
            Err(error) => Err(error),
        };
        // What another attempt can go on with stays; the rest is of no more use.
        if saved.as_ref().map_or_else(|error| !error.retry(), |_| true) {
            blocking("tidying", folder, move || {
                tray.clear();
                Ok(())
            })
            .await?;
        }
        if let Err(error @ Error::Io { .. }) = &saved {
            inner.cache_pulse.set(PlaceState::Failed(Fault::new(error, hint_of_disk(error))));
        }
        saved
    }

    async fn cached(&self, cid: &Cid) -> Result<Option<Content>, Error> {
        let (cache, cid) = (Arc::clone(&self.0.cache), cid.clone());
        blocking("reading", &self.0.options.cache, move || cache.lookup(&cid)).await
    }

    /// Whether the content, or at least its root, is here: in the cache or the mirror. Asks no gateway.
    pub async fn has(&self, cid: &Cid) -> bool {
        if cid.inline().is_some() || self.cached(cid).await.is_ok_and(|found| found.is_some()) {
            return true;
        }
        match &self.0.blocks.mirror {
            Some(mirror) => mirror.block(cid, Budget::default().block_bytes).await.is_ok(),
            None => false,
        }
    }

    /// Adds a file to Kubo, else to the mirror, and answers the CID that `ipfs add` gives it.
    ///
    /// # Errors
    /// `io`, `no_source`, `cid_differs`, `rpc_failed`, `unreachable` and time-outs.
    pub async fn add_file(&self, path: &Path, version: CidVersion) -> Result<Cid, Error> {
        let Some(kubo) = &self.0.kubo else {
            return self.mirror()?.add_file(path, version).await;
        };
        let owned = path.to_owned();
        let cid = blocking("reading", path, move || cid_of_file(&owned, version)).await?;
        kubo.add_file(path, &cid, version).await?;
        Ok(cid)
    }

    /// Adds bytes as a file; see [`add_file`](Self::add_file).
    ///
    /// # Errors
    /// As for a file.
    pub async fn add_bytes(&self, content: &[u8], version: CidVersion) -> Result<Cid, Error> {
        let owned = content.to_vec();
        let naming = blocking("naming", &self.0.options.cache, move || {
            Ok((cid_of_bytes(&owned, version), owned))
        });
        let (cid, owned) = naming.await?;
        match &self.0.kubo {
            Some(kubo) => {
                kubo.add_bytes(&owned, &cid, version).await?;
                Ok(cid)
            }
            None => self.mirror()?.add_bytes(cid, owned).await,
        }
    }

    /// Stores at most [`MAX_RAW_BYTES`] as one raw block, pinned, and answers its CID: the SHA-256 is the address.
    ///
    /// # Errors
    /// `too_large`, and as for a file.
    pub async fn put_raw(&self, block: &[u8]) -> Result<Cid, Error> {
        let cid = raw_cid(block);
        if block.len() > MAX_RAW_BYTES {
            return Err(Error::TooLarge { cid, limit_bytes: MAX_RAW_BYTES as u64 });
        }
        match &self.0.kubo {
            Some(kubo) => {
                kubo.put_raw(block, &cid).await?;
                Ok(cid)
            }
            None => self.mirror()?.add_bytes(cid, block.to_vec()).await,
        }
    }

    fn mirror(&self) -> Result<&Mirror, Error> {
        self.0
            .blocks
            .mirror
            .as_ref()
            .ok_or(Error::NoSource { missing: "there is neither an RPC nor a mirror to add to" })
    }
}

impl Inner {
    async fn probe(&self) {
        for gateway in &self.blocks.gateways {
            gateway.probe(Duration::ZERO).await;
        }
        if let Some(kubo) = &self.kubo {
            kubo.probe().await;
        }
        let cache = Arc::clone(&self.cache);
        let tried = blocking("trying", &self.options.cache, move || cache.try_writing()).await;
        self.cache_pulse.set(match tried {
            Ok(()) => PlaceState::Works,
            Err(error) => PlaceState::Failed(Fault::new(&error, hint_of_disk(&error))),
        });
        if let Some(mirror) = &self.blocks.mirror {
            let is_only = self.blocks.gateways.is_empty();
            self.mirror_pulse.set(match mirror.look(is_only).await {
                Ok(()) => PlaceState::Works,
                Err(error) => {
                    let hint = is_only.then(|| {
                        "name a folder that can be read, or a gateway to fetch from".to_owned()
                    });
                    PlaceState::Failed(Fault::new(&error, hint))
                }
            });
        }
    }
}

/// Looks at the places until the store is gone.
async fn watch(inner: Weak<Inner>, pause: Duration) {
    while let Some(store) = inner.upgrade() {
        store.probe().await;
        drop(store);
        tokio::time::sleep(pause).await;
    }
}

/// What to do about a folder that cannot be used.
fn hint_of_disk(error: &Error) -> Option<String> {
    let Error::Io { path, source, .. } = error else { return None };
    let path = path.display();
    Some(match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            format!("free space on the disk of {path}, or keep the cache elsewhere")
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            format!("let this process write to {path}")
        }
        _ => return None,
    })
}
