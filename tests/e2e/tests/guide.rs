//! The guide of docs/wireguard.md, followed to the letter on clean machines behind NATs. The test that follows it needs root, and says
//! `skipped` without.

use std::time::Duration;

use towpath_e2e::{Kind, Machine, Tunnel, turn};
use towpath_lab::{Class, Pair, Timing};

const PAGE: &str = include_str!("../../../docs/wireguard.md");
const SECTION: &str = "WireGuard between two laptops behind NATs in three minutes";
/// What the guide tells a reader to wait for.
const READY: &str = "the packets of towpath are carried";
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose a block of commands is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    First,
    Second,
    Both,
}

/// A block of commands of a guide.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    owner: Owner,
    commands: String,
}

/// The text of a section.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, text) = page.split_once(&format!("\n## {title}\n")).expect("the section");
    text.split_once("\n## ").map_or(text, |(text, _)| text)
}

/// The blocks of commands in a text. The paragraph before a block ends with the machine that it is for.
fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut parts = text.split("```");
    let mut before = parts.next().unwrap_or_default();
    while let Some(block) = parts.next() {
        let said = before.trim_end().lines().last().unwrap_or_default();
        let owner = match said {
            "On the first machine:" | "On the first machine, in another terminal:" => Owner::First,
            "On the second machine:" => Owner::Second,
            "On both machines:" => Owner::Both,
            _ => return Err(format!("`{said}` does not say where this is to be run:{block}")),
        };
        let commands = block.strip_prefix("sh\n").ok_or_else(|| format!("no block of commands:{block}"))?;
        blocks.push(Block { owner, commands: commands.to_owned() });
        before = parts.next().ok_or("a block has no end")?;
    }
    Ok(blocks)
}

/// Does what a block says.
fn follow(block: &Block, tunnel: &Tunnel) -> [String; 2] {
    let does = |at, machine: &Machine| {
        let is_its = match block.owner {
            Owner::First => at == 0,
            Owner::Second => at == 1,
            Owner::Both => true,
        };
        if !is_its {
            return String::new();
        }
        let script = format!("cd {}\n{}", machine.files().display(), block.commands);
        if block.commands.contains("towpath proxy") {
            machine.start_script(&script);
            machine.wait_for_log(READY, 1, PATIENCE);
            String::new()
        } else {
            machine.run(&format!("set -e\n{script}"))
        }
    };
    tunnel.both(does)
}

#[test]
fn the_guide_works_as_it_stands() {
    let Some((programs, _turn)) = turn() else { return };
    let text = section(PAGE, SECTION);
    assert!(text.contains(&format!("`{READY}`")), "the guide says how it is seen that a proxy is there");
    let pair = Pair::new(Class::P, Class::P, Timing::NEAR, 6);
    let tunnel = Tunnel::prepare(Kind::Towpath, programs, &pair);
    let mut line = None;
    let mut said = [String::new(), String::new()];
    for mut block in blocks(text).expect("a guide") {
        if let Some((shown, _)) = block.commands.split_once('…') {
            let line: &String = line.as_ref().expect("an earlier command has printed the line");
            assert!(line.starts_with(shown), "the guide shows the beginning of another line");
            block.commands.clone_from(line);
        }
        said = follow(&block, &tunnel);
        println!("{:?}: {}{}", block.owner, block.commands, said.concat());
        let printed =
            said.iter().flat_map(|said| said.lines()).find(|line| line.starts_with("towpath pair "));
        line = printed.map(str::to_owned).or(line);
    }
    assert!(said[0].contains("3 received, 0% packet loss"), "the last command pings: {said:?}");
    tunnel.machines[1].run("ping -n -c 1 -w 10 laptop");
}

#[test]
fn a_block_for_no_known_machine_is_refused() {
    let text = "On both machines:\n\n```sh\nwg\n```\n\nThen\non the second machine:\n\n```sh\nls\n```\n";
    let refused = blocks(text).expect_err("it is refused");
    assert!(refused.starts_with("`on the second machine:` does not say where"), "{refused}");
    let text = text.replace("Then\non", "Then\n\nOn");
    let owners: Vec<_> = blocks(&text).expect("a guide").iter().map(|block| block.owner).collect();
    assert_eq!(owners, [Owner::Both, Owner::Second]);
}
