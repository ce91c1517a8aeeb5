//! Commands that look at a folder of reports.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};

use super::args::print;
use crate::report::compare::{Comparison, compare};
use crate::report::plots::{PlotSubject, plot};
use crate::report::runs::ReportFolder;

/// Which reports.
#[derive(Debug, Args)]
struct FolderArgs {
    /// Reports as LOAD.SERVER.N.json
    #[arg(long)]
    folder: PathBuf,
    /// Servers, the one that others are compared with first
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    reports: FolderArgs,
    /// Which load
    #[arg(long)]
    load: String,
    /// The figure's name, as reports have it
    #[arg(long)]
    figure: String,
    /// Show the figure as a share of another load's figure
    #[arg(long, value_name = "LOAD=FIGURE", value_parser = parse_pair)]
    share_of: Option<(String, String)>,
    /// Mention this figure, too, where it is not zero
    #[arg(long, value_name = "FIGURE")]
    besides: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PlotArgs {
    #[command(flatten)]
    reports: FolderArgs,
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
    /// 99 % latency over the rates of a ramp
    RampLatency {
        /// Which load
        load: String,
    },
    /// Loss over the rates of a ramp
    RampLoss {
        /// Which load
        load: String,
    },
    /// One figure of several loads
    Bars {
        /// The figure's name, as reports have it
        figure: String,
        /// The loads, each with a label
        #[arg(value_name = "LOAD=LABEL", value_parser = parse_pair, required = true)]
        loads: Vec<(String, String)>,
    },
    /// Latency of pairs
    Quantiles {
        /// Which load
        load: String,
    },
    /// Memory over idle connections
    Memory {
        /// Which load
        load: String,
    },
}

/// Prints the cells of a row.
pub(super) fn print_row(args: CompareArgs) -> Result<()> {
    let CompareArgs { reports, load, figure, share_of, besides } = args;
    let FolderArgs { folder, servers } = reports;
    let row =
        compare(&Comparison { folder: ReportFolder(folder), load, figure, servers, share_of, besides })?;
    print(&format!("{row}\n"))
}

/// Writes a plot.
pub(super) fn write_plot(args: PlotArgs) -> Result<()> {
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
    let (name, value) = text.split_once('=').ok_or_else(|| anyhow!("two parts with a = between them"))?;
    Ok((name.to_owned(), value.to_owned()))
}
