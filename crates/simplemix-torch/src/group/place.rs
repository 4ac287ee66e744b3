//! Place of this process among those that work together, from what torchrun or Slurm has set.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Port of the store where nothing says another, as for torchrun.
const PORT: u16 = 29_500;

/// Place of a process among those that work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Number of this process among those on its machine: the number of its device.
    pub local_rank: usize,
    /// Processes on this machine.
    pub local_size: usize,
    /// Name or address of the machine that keeps the store.
    pub address: String,
    /// Port of the store.
    pub port: u16,
    /// Whether a process that started this one keeps the store, as torchrun does; otherwise rank 0 does.
    pub is_kept_by_agent: bool,
    /// Number of the start: how many times all processes were started before.
    pub attempt: u64,
}

impl Place {
    /// The place that the environment names: torchrun's variables, or those of a step of Slurm; none for a process of its own.
    ///
    /// # Errors
    /// [`Error::Argument`] with the name of a variable that is missing or no number.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::of(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Place::from_environment`], of variables that `get` reads.
    ///
    /// # Errors
    /// As there.
    pub fn of(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        if get("RANK").is_some() || get("WORLD_SIZE").is_some() {
            return Self::of_torchrun(get).map(Some);
        }
        // A batch script has the job's number of tasks without being one of them; a step has a number of its own.
        if get("SLURM_STEP_ID").is_some() && get("SLURM_PROCID").is_some() {
            let place = Self::of_slurm(get)?;
            return Ok(Some(place).filter(|place| place.size > 1));
        }
        Ok(None)
    }

    fn of_torchrun(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let rank = needed(get, "RANK")?;
        let size = needed(get, "WORLD_SIZE")?;
        let local_rank = needed(get, "LOCAL_RANK")?;
        Self {
            rank,
            size,
            local_rank,
            local_size: number(get, "LOCAL_WORLD_SIZE")?.unwrap_or(size),
            address: get("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: number(get, "MASTER_PORT")?.unwrap_or(PORT),
            // torch sets `False` where rank 0 has to keep it.
            is_kept_by_agent: get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            attempt: number(get, "TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
        }
        .checked()
    }

    fn of_slurm(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let size = match number(get, "SLURM_STEP_NUM_TASKS")? {
            Some(size) => size,
            None => needed(get, "SLURM_NTASKS")?,
        };
        let address = match get("MASTER_ADDR") {
            Some(address) => address,
            None => {
                let nodes = get("SLURM_STEP_NODELIST").or_else(|| get("SLURM_JOB_NODELIST")).unwrap_or_default();
                let first = first_host(&nodes);
                first.ok_or_else(|| Error::argument("SLURM_STEP_NODELIST", quoted(&nodes), "names of machines"))?
            }
        };
        let job: u64 = number(get, "SLURM_JOB_ID")?.unwrap_or(0);
        let step: u64 = number(get, "SLURM_STEP_ID")?.unwrap_or(0);
        // A job's steps, and jobs that share a machine, have ports of their own.
        let port = number(get, "MASTER_PORT")?.unwrap_or(15_000 + ((job * 16 + step % 16) % 15_000) as u16);
        Self {
            rank: needed(get, "SLURM_PROCID")?,
            size,
            local_rank: needed(get, "SLURM_LOCALID")?,
            local_size: local_tasks(get)?.unwrap_or(size),
            address,
            port,
            is_kept_by_agent: false,
            attempt: number(get, "SLURM_RESTART_COUNT")?.unwrap_or(0),
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        if self.rank >= self.size {
            let expected = format!("below {}, the number of processes", self.size);
            return Err(Error::argument("RANK", self.rank, expected));
        }
        Ok(self)
    }

    /// Whether this process keeps the store.
    pub fn keeps_store(&self) -> bool {
        self.rank == 0 && !self.is_kept_by_agent
    }
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

fn number<T: FromStr>(get: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<T>> {
    let parsed =
        |text: String| text.trim().parse().map_err(|_| Error::argument(name, quoted(&text), "a number from 0"));
    get(name).map(parsed).transpose()
}

fn needed<T: FromStr>(get: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<T> {
    number(get, name)?.ok_or_else(|| {
        Error::argument(name, "not set", "a number from 0, beside the other variables that torchrun or Slurm sets")
    })
}

/// Tasks on this node: `SLURM_STEP_TASKS_PER_NODE` is a list such as `4(x2),3`.
fn local_tasks(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<usize>> {
    let Some(list) = get("SLURM_STEP_TASKS_PER_NODE").or_else(|| get("SLURM_TASKS_PER_NODE")) else { return Ok(None) };
    let node: usize = number(get, "SLURM_NODEID")?.unwrap_or(0);
    let refuse = || Error::argument("SLURM_STEP_TASKS_PER_NODE", quoted(&list), "numbers of tasks, as in `4(x2),3`");
    let mut first = 0;
    for part in list.split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, rest)) => (tasks, rest.strip_suffix(')').ok_or_else(refuse)?),
            None => (part, "1"),
        };
        let nodes: usize = nodes.parse().map_err(|_| refuse())?;
        if node < first + nodes {
            return tasks.parse().map(Some).map_err(|_| refuse());
        }
        first += nodes;
    }
    Err(refuse())
}

/// First machine of a list of Slurm's, such as `n[01-03,7],head`.
fn first_host(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let name = &list[..end];
    let host = match list[end..].strip_prefix('[') {
        None => name.to_owned(),
        Some(rest) => {
            let (numbers, after) = rest.split_once(']')?;
            let first = numbers.split([',', '-']).next().filter(|first| !first.is_empty())?;
            let is_whole = after.is_empty() || after.starts_with(',');
            format!("{name}{first}{}", if is_whole { String::new() } else { first_host(after)? })
        }
    };
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::of(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn torchrun_says_who_keeps_the_store() {
        assert_eq!(place(&[]).unwrap(), None);
        let mut variables = vec![
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "head"),
            ("MASTER_PORT", "1234"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let found = place(&variables).unwrap().unwrap();
        let expected = Place {
            rank: 3,
            size: 4,
            local_rank: 1,
            local_size: 2,
            address: "head".to_owned(),
            port: 1234,
            is_kept_by_agent: true,
            attempt: 2,
        };
        assert_eq!(found, expected);
        variables[6].1 = "False";
        assert!(!place(&variables).unwrap().unwrap().is_kept_by_agent);
        variables[0].1 = "0";
        assert!(place(&variables).unwrap().unwrap().keeps_store());
        variables[0].1 = "4";
        assert_eq!(
            place(&variables).unwrap_err().to_string(),
            "`RANK` is 4, expected below 4, the number of processes"
        );
        let error = place(&variables[1..]).unwrap_err().to_string();
        assert!(error.starts_with("`RANK` is not set, expected a number from 0"), "{error}");
        variables[1].1 = "four";
        assert!(place(&variables).unwrap_err().to_string().starts_with("`WORLD_SIZE` is `four`"));
    }

    /// Variables that `srun -N 2 -n 4` of Slurm 22.05 set for task 2.
    const SLURM: [(&str, &str); 9] = [
        ("SLURM_STEP_ID", "0"),
        ("SLURM_JOB_ID", "7"),
        ("SLURM_PROCID", "2"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_NODEID", "1"),
        ("SLURM_NTASKS", "4"),
        ("SLURM_STEP_NUM_TASKS", "4"),
        ("SLURM_STEP_NODELIST", "n[1-2]"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x2)"),
    ];

    #[test]
    fn a_step_of_slurm_has_a_place_and_a_batch_script_has_none() {
        let found = place(&SLURM).unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.local_rank, found.local_size), (2, 4, 0, 2));
        assert_eq!((found.address.as_str(), found.port, found.keeps_store()), ("n1", 15_112, false));
        assert_eq!(place(&SLURM[1..]).unwrap(), None);
        let moved = [&SLURM[..], &[("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "99")]].concat();
        let found = place(&moved).unwrap().unwrap();
        assert_eq!((found.address.as_str(), found.port), ("127.0.0.1", 99));
        // torchrun inside of a step counts.
        let both = [&SLURM[..], &[("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")]].concat();
        assert_eq!(place(&both).unwrap().unwrap().size, 2);
    }

    #[test]
    fn the_first_machine_of_a_list_is_found() {
        for (list, first) in [
            ("n1", "n1"),
            ("n1,n2", "n1"),
            ("n[1-2]", "n1"),
            ("gpu[007,9-12],head", "gpu007"),
            ("rack[2-3]n[4-5]", "rack2n4"),
            ("a[1-2].cluster,b", "a1.cluster"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
        assert_eq!(first_host("n["), None);
    }

    #[test]
    fn tasks_of_a_node_are_counted() {
        let tasks = |list: &'static str, node: &'static str| {
            local_tasks(&|name| match name {
                "SLURM_NODEID" => Some(node.to_owned()),
                "SLURM_STEP_TASKS_PER_NODE" => Some(list.to_owned()),
                _ => None,
            })
        };
        assert_eq!(tasks("4(x2),3", "1").unwrap(), Some(4));
        assert_eq!(tasks("4(x2),3", "2").unwrap(), Some(3));
        assert!(tasks("4(x2),3", "3").is_err());
        assert!(tasks("4(x", "0").is_err());
    }
}
