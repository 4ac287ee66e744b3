//! Several processes of one command: started here by --processes, or by torchrun, Slurm and what sets the same variables.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use simplemix_model::DeviceChoice;
use simplemix_torch::group::{Group, GroupOptions, Place, StoreKeeper};
use simplemix_train::{ParallelSettings, Team};
use tch::Device;

use crate::failure::{Fails, Failure, Result};
use crate::interrupt;
use crate::lines::{self, warn};

/// Variable of processes that end with the one that has started them.
const STARTED: &str = "SIMPLEMIX_STARTED";

/// Time that processes have to end by themselves after one has failed.
const GRACE: Duration = Duration::from_secs(10);

/// The processes of this command, of which this is one.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    group: Option<Arc<Group>>,
    device: Option<Device>,
}

impl Processes {
    /// Joins the other processes, if torchrun, Slurm or --processes has started several; `None` if they are still to be started.
    /// The device becomes this process's own.
    pub(crate) fn join(
        settings: &ParallelSettings,
        device: &mut DeviceChoice,
        output: Option<&Path>,
    ) -> Result<Option<Self>> {
        let Some(place) = Place::from_environment().input()? else {
            return Ok((settings.processes == 1).then(Self::default));
        };
        if settings.processes != 1 && settings.processes != place.size {
            let (asked, started) = (settings.processes, place.size);
            return Err(Failure::input(format!(
                "`parallel.processes` is {asked}, and {started} processes were started: leave it out, or start as many"
            )));
        }
        if place.rank > 0 {
            lines::leave_to(log(output, place.rank));
        }
        if place.size == 1 {
            return Ok(Some(Self::default()));
        }
        *device = own_device(*device, &place)?;
        let opened = device.open().input()?;
        let mut options = GroupOptions::for_device(opened);
        if let Some(seconds) = settings.time_limit {
            options.limit = Duration::try_from_secs_f64(seconds).input()?;
        }
        let group = Group::open(&place, opened, &options).run()?;
        group.agree("program", &program().run()?).run()?;
        Ok(Some(Self { group: Some(Arc::new(group)), device: Some(opened) }))
    }

    /// The processes as a run takes them.
    pub(crate) fn team(&self) -> Team {
        match (&self.group, self.device) {
            (Some(group), Some(device)) => Team::new(Arc::clone(group), device),
            _ => Team::default(),
        }
    }

    /// Whether this process writes files and speaks for all.
    pub(crate) fn is_first(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.rank() == 0)
    }

    /// Sees that a process for which another one speaks can write its log.
    pub(crate) fn begin_log(&self) -> Result {
        let Some(group) = self.group.as_ref().filter(|group| group.rank() > 0) else { return Ok(()) };
        lines::log(&format!("rank {} of {}, process {}", group.rank(), group.size(), std::process::id())).run()
    }

    /// Tells the others of work that may take any time.
    pub(crate) fn does_at_length(&self, text: &str) {
        if let Some(group) = &self.group {
            group.does_at_length(text);
        }
    }

    /// Sees that all processes have found the same.
    pub(crate) fn agree(&self, what: &str, value: &str) -> Result {
        self.group.as_ref().map_or(Ok(()), |group| group.agree(what, value)).run()
    }

    /// Does this process's part of the work, and tells the others if it fails.
    pub(crate) fn work(self, work: impl FnOnce(&Self) -> Result) -> Result {
        let done = work(&self);
        let Some(group) = self.group else { return done };
        match &done {
            Ok(()) | Err(Failure::Interrupted) => {
                // Whoever still holds the group is done with it.
                if let Some(group) = Arc::into_inner(group) {
                    group.leave().run()?;
                }
            }
            Err(failure) => group.fail(&failure.message().unwrap_or_default()),
        }
        done
    }
}

/// This program as the others have to have it too: its version, and its length, in which builds of one version differ.
fn program() -> std::io::Result<String> {
    let length = std::fs::metadata(std::env::current_exe()?)?.len();
    Ok(format!("simplemix {} of {length} bytes", env!("CARGO_PKG_VERSION")))
}

/// Log of a process that does not speak.
fn log(output: Option<&Path>, rank: usize) -> PathBuf {
    output.unwrap_or(Path::new(".")).join("processes").join(format!("rank-{rank}.log"))
}

/// The device of a process: the GPU of its number on the machine, or the CPU.
fn own_device(asked: DeviceChoice, place: &Place) -> Result<DeviceChoice> {
    match asked {
        DeviceChoice::Cuda(number) if number > 0 && place.local_size > 1 => Err(Failure::input(format!(
            "`device` is `{asked}` for {} processes on this machine; expected `cuda` (each takes the GPU of its number), `cpu` or \
             `auto`",
            place.local_size
        ))),
        DeviceChoice::Cpu => Ok(DeviceChoice::Cpu),
        _ if asked.open().input()? == Device::Cpu => Ok(DeviceChoice::Cpu),
        _ => Ok(DeviceChoice::Cuda(place.local_rank)),
    }
}

/// Ends this process when the one that has started it ends, if that is asked for.
pub(crate) fn end_with_the_starter() {
    if std::env::var_os(STARTED).is_some() {
        // A system without this has processes that end when the store does.
        let _ = set_pdeathsig(Some(Signal::SIGTERM));
    }
}

/// Starts this command as `count` processes on this machine and waits for them. The exit code is that of the first of them, which
/// speaks for all.
pub(crate) fn launch(count: usize, output: Option<&Path>) -> Result {
    let keeper = StoreKeeper::open().run()?;
    let mut started = Started { children: Vec::new(), ends: Vec::new(), is_interrupted: false };
    for rank in 0..count {
        started.children.push(start(rank, count, keeper.port())?);
    }
    started.wait(&keeper)?;
    started.outcome(output)
}

/// Processes that were started here, by rank, and how they have ended.
struct Started {
    children: Vec<Child>,
    /// Ranks in the order of their ends.
    ends: Vec<(usize, ExitStatus)>,
    is_interrupted: bool,
}

impl Started {
    fn wait(&mut self, keeper: &StoreKeeper) -> Result {
        let interrupted = interrupt::flag();
        let mut failed_at = None::<Instant>;
        let mut told = [false; 2];
        while self.ends.len() < self.children.len() {
            let before = self.ends.len();
            self.look()?;
            for (rank, status) in self.ends[before..].iter().filter(|(_, status)| !status.success()) {
                // Those that are left know it already if it has told them, and cannot know it if it was killed.
                let _ = keeper.tell_end(*rank, &ended(*status));
            }
            if interrupted.swap(false, Ordering::SeqCst) {
                self.is_interrupted = true;
                // A terminal has told them too; a second time does no harm.
                self.signal(Signal::SIGTERM);
            }
            if self.ends.iter().any(|(_, status)| !status.success()) {
                let since = now().duration_since(*failed_at.get_or_insert_with(now));
                for (at, (told, signal)) in told.iter_mut().zip([Signal::SIGTERM, Signal::SIGKILL]).enumerate() {
                    if !*told && since >= GRACE * (at as u32 + 1) {
                        *told = true;
                        self.signal(signal);
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Notes which processes have ended.
    fn look(&mut self) -> Result {
        for (rank, child) in self.children.iter_mut().enumerate() {
            if !self.ends.iter().any(|(ended, _)| *ended == rank)
                && let Some(status) = child.try_wait().run()?
            {
                self.ends.push((rank, status));
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let has_ended = |rank: usize| self.ends.iter().any(|(ended, _)| *ended == rank);
        for (_, child) in self.children.iter().enumerate().filter(|(rank, _)| !has_ended(*rank)) {
            // One that has ended meanwhile is none to be told.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    /// The failure as the first process has told it, or as it was seen from here.
    fn outcome(&self, output: Option<&Path>) -> Result {
        let mut failed = self.ends.iter().filter(|(_, status)| !status.success());
        let Some(&(rank, status)) = failed.clone().next() else { return Ok(()) };
        let spoken = failed.find(|(rank, _)| *rank == 0).and_then(|(_, status)| status.code());
        if let Some(code) = spoken {
            return Err(Failure::Told(code));
        }
        let was_asked = |status: &ExitStatus| status.signal().is_none_or(|signal| signal != Signal::SIGKILL as i32);
        if self.is_interrupted && self.ends.iter().all(|(_, status)| was_asked(status)) {
            warn("stopped");
            return Err(Failure::Interrupted);
        }
        let more = match rank {
            0 => String::new(),
            _ => format!("; what it had to say is in {}", log(output, rank).display()),
        };
        Err(Failure::Run(anyhow::anyhow!("rank {rank} {}{more}", ended(status))))
    }
}

/// How a process has ended, in words.
fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == Signal::SIGKILL as i32 => {
            format!("was ended by signal {signal}, which the system sends where memory runs out")
        }
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, code) => format!("ended with exit code {}", code.unwrap_or(1)),
    }
}

#[expect(clippy::disallowed_methods, reason = "processes get some time to end by themselves")]
fn now() -> Instant {
    Instant::now()
}

fn start(rank: usize, count: usize, port: u16) -> Result<Child> {
    let program = std::env::current_exe().run()?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    let variables = [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", count.to_string()),
        ("LOCAL_WORLD_SIZE", count.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
        ("TORCHELASTIC_USE_AGENT_STORE", "True".to_owned()),
        (STARTED, "1".to_owned()),
    ];
    command.envs(variables).env_remove("TORCHELASTIC_RESTART_COUNT");
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("OMP_NUM_THREADS", (cores / count).max(1).to_string());
    }
    if std::env::var_os("GLOO_SOCKET_IFNAME").is_none() {
        command.env("GLOO_SOCKET_IFNAME", "lo");
    }
    if rank > 0 {
        command.stdin(Stdio::null());
    }
    command.spawn().run()
}
