//! The subcommands that read reports.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};

use crate::report::compare::{Comparison, compare};
use crate::report::plots::{PlotSubject, plot};
use crate::report::runs::ReportFolder;
use crate::report::summary::summarize;

/// A subcommand that reads reports.
#[derive(Debug, Subcommand)]
pub(super) enum ReportCommand {
    /// Prints the median of each figure in several JSON reports of one scenario
    Summary {
        /// The reports
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Prints one figure of several servers as cells of a table: medians, and medians of the ratios run by run
    Compare(CompareArgs),
    /// Draws an SVG plot of several servers
    Plot(PlotArgs),
}

/// The options that choose reports.
#[derive(Debug, Args)]
struct FolderArgs {
    /// A folder with reports named LOAD.SERVER.N.json
    #[arg(long)]
    folder: PathBuf,
    /// The servers; the others are compared with the first
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    reports: FolderArgs,
    /// The load
    #[arg(long)]
    load: String,
    /// The figure's name in the reports
    #[arg(long)]
    figure: String,
    /// Show the figure as a share of another load's figure
    #[arg(long, value_name = "LOAD=FIGURE", value_parser = parse_pair)]
    share_of: Option<(String, String)>,
    /// Also show this figure where it is not zero
    #[arg(long, value_name = "FIGURE")]
    besides: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PlotArgs {
    #[command(flatten)]
    reports: FolderArgs,
    /// The title in the plot
    #[arg(long)]
    title: String,
    /// The SVG file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(subcommand)]
    subject: PlotSubjectArgs,
}

#[derive(Debug, Subcommand)]
enum PlotSubjectArgs {
    /// 99th percentile of latency over the rates of a ramp
    RampLatency {
        /// The load
        load: String,
    },
    /// Loss over the rates of a ramp
    RampLoss {
        /// The load
        load: String,
    },
    /// One figure of several loads
    Bars {
        /// The figure's name in the reports
        figure: String,
        /// The loads, each with a label
        #[arg(value_name = "LOAD=LABEL", value_parser = parse_pair, required = true)]
        loads: Vec<(String, String)>,
    },
    /// Percentiles of the latency of pairs
    Quantiles {
        /// The load
        load: String,
    },
    /// Memory over the number of idle connections
    Memory {
        /// The load
        load: String,
    },
}

impl ReportCommand {
    /// Runs the subcommand.
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Summary { files } => io::stdout().write_all(summarize(&files)?.as_bytes())?,
            Self::Compare(args) => print_row(args)?,
            Self::Plot(args) => write_plot(args)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_row(args: CompareArgs) -> Result<()> {
    let CompareArgs { reports, load, figure, share_of, besides } = args;
    let FolderArgs { folder, servers } = reports;
    let row =
        compare(&Comparison { folder: ReportFolder(folder), load, figure, servers, share_of, besides })?;
    Ok(writeln!(io::stdout(), "{row}")?)
}

fn write_plot(args: PlotArgs) -> Result<()> {
    let subject = match args.subject {
        PlotSubjectArgs::RampLatency { load } => PlotSubject::RampLatency { load },
        PlotSubjectArgs::RampLoss { load } => PlotSubject::RampLoss { load },
        PlotSubjectArgs::Bars { figure, loads } => PlotSubject::Bars { figure, loads },
        PlotSubjectArgs::Quantiles { load } => PlotSubject::Quantiles { load },
        PlotSubjectArgs::Memory { load } => PlotSubject::Memory { load },
    };
    let plot = plot(&ReportFolder(args.reports.folder), &args.reports.servers, &subject, &args.title)?;
    fs::write(&args.out, plot.file()).with_context(|| format!("writing {}", args.out.display()))
}

fn parse_pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').ok_or_else(|| anyhow!("expected two parts with = between"))?;
    Ok((name.to_owned(), value.to_owned()))
}
