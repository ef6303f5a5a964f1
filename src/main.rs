//! Picks a command, runs it, and turns an error into an exit status.

use clap::Parser;
use redkeep::cli::{self, Cli, Command, Config, Error, Secrets, Store};
use redkeep::{config, demo, offline, server};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    server::install_crypto();
    let outcome = match Cli::parse().command {
        Command::Serve(args) => server::serve(args.config.as_deref(), &args.overrides()).await.map_err(Error::failed),
        Command::Demo(args) => demo::run(args.keep).await.map_err(Error::failed),
        Command::Client(command) => cli::run(command).await,
        Command::Fetch(args) => offline::fetch(&args).await.map_err(Error::failed),
        Command::Restore(args) => offline::restore(&args).await.map_err(Error::failed),
        Command::Store(Store::Verify(args)) => offline::verify_store(args.config.as_deref()).await.map_err(Error::failed),
        Command::Config(Config::Check(args)) => config::check(args.config.as_deref()).map_err(Error::failed),
        Command::Secrets(Secrets::NewKey(args)) => offline::new_key(&args.file).map_err(Error::failed),
        Command::Token(command) => cli::token(command).await,
        Command::Descriptors(args) => cli::descriptors(&args),
        Command::DevCerts(args) => cli::dev_certs(&args),
    };
    cli::report(outcome)
}
