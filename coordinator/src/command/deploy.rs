use chain::{Board, Deployment};
use serde_json::json;
use task::Address;

use super::{Error, Output, board};
use crate::{config::Config, serve};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signs with COORDINATOR_CLIENT_KEY, which owns the contract afterwards. The coordinators that may
answer are those named here, else the account of COORDINATOR_KEY.

Examples:
  coordinator deploy
  coordinator deploy --coordinator 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --domain main")]
pub(super) struct Arguments {
    /// An account that may publish results in the domain; may be repeated
    #[arg(long, value_name = "ADDRESS", value_parser = board::address)]
    coordinator: Vec<Address>,
    /// Register a second domain of this name for them; without it they answer domain 0, "default"
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// An engine's printable name to register; may be repeated; the installed executor's by default
    #[arg(long, value_name = "NAME")]
    engine: Vec<String>,
}

pub(super) async fn deploy(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let key = board::client_key(&config.chain)?;
    let mut coordinators = arguments.coordinator.clone();
    if coordinators.is_empty() {
        let publisher = config.chain.key.as_ref().map(chain::Key::address);
        coordinators.push(publisher.ok_or_else(|| {
            Error::Usage(
                "nobody could publish results: name --coordinator ADDRESS, or set COORDINATOR_KEY"
                    .into(),
            )
        })?);
    }
    if coordinators.contains(&key.address()) {
        return Err(Error::Usage(format!(
            "{} signs this as the client: a coordinator has a key of its own",
            key.address()
        )));
    }
    let mut engines = arguments.engine.clone();
    if engines.is_empty() {
        let launcher = serve::launcher(config)?;
        let ready = launcher.ready().await;
        launcher.close().await;
        engines.push(ready?.engine);
    }
    let client = board::connect(&config.chain).await?;
    let deployment =
        Deployment { owner: None, engines, coordinators, domain: arguments.domain.clone() };
    let deployed = {
        let _progress = output.progress("deploying: waiting for the transactions");
        Board::deploy(&client, key, &deployment).await?
    };
    output.say(&format!(
        "deployed on chain {} in block {}: domain {} ({}), engine {}",
        client.chain_id(),
        deployed.block.number,
        deployed.domain,
        arguments.domain.as_deref().unwrap_or("default"),
        deployment.engines.join(", ")
    ));
    output.data(
        &deployed.contract.to_string(),
        &json!({
            "contract": deployed.contract,
            "chain_id": client.chain_id(),
            "block": deployed.block,
            "transaction": deployed.transaction,
            "domain": deployed.domain,
            "engines": deployment.engines,
            "coordinators": deployment.coordinators,
        }),
    );
    Ok(())
}
