//! Several processes of one command: started here by --processes, or by torchrun, Slurm and what sets the same variables.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use simplemix_model::{DeviceChoice, Gpus};
use simplemix_torch::group::{Group, GroupOptions, Place, StoreKeeper};
use simplemix_train::{ParallelSettings, Team};
use tch::Device;

use crate::claims::{Claims, claim_files};
use crate::failure::{Fails, Failure, Result};
use crate::flags::{DeviceFlag, ProcessesFlag};
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
    pub(crate) fn join(settings: &ParallelSettings, device: &mut DeviceChoice, logs: Logs<'_>) -> Result<Option<Self>> {
        let Some(place) = Place::from_environment().input()? else {
            check_devices(settings.processes, *device)?;
            return Ok((settings.processes == 1).then(Self::default));
        };
        if settings.processes != 1 && settings.processes != place.size {
            let (asked, started) = (settings.processes, place.size);
            return Err(Failure::input(format!(
                "`parallel.processes` is {asked}, and {started} processes were started: leave it out, or start as many"
            )));
        }
        if place.rank > 0 {
            lines::leave_to(logs.of(place.rank));
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

    /// The device of this process where `asked` is the one of all.
    pub(crate) fn own(&self, asked: DeviceChoice) -> Result<DeviceChoice> {
        self.group.as_ref().map_or(Ok(asked), |group| own_device(asked, group.place()))
    }

    /// Claims the files of these flags, in the process that writes.
    pub(crate) fn claim_files(&self, outputs: &[(&str, &Path)]) -> Result<Option<Claims>> {
        self.is_first().then(|| claim_files(outputs)).transpose()
    }

    /// The processes as a run takes them.
    pub(crate) fn team(&self) -> Team {
        match (&self.group, self.device) {
            (Some(group), Some(device)) => Team::new(Arc::clone(group), device),
            _ => Team::default(),
        }
    }

    /// Number of the processes.
    pub(crate) fn count(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.size())
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

/// Place of the logs of processes that do not speak.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Logs<'a> {
    /// The folder `processes` in this one, or in the present one.
    In(Option<&'a Path>),
    /// Files beside this one.
    Beside(&'a Path),
}

impl Logs<'_> {
    fn of(self, rank: usize) -> PathBuf {
        match self {
            Self::In(folder) => folder.unwrap_or(Path::new(".")).join("processes").join(format!("rank-{rank}.log")),
            Self::Beside(output) => {
                let name = output.file_name().unwrap_or_default().to_string_lossy();
                output.with_file_name(format!("{name}.rank-{rank}.log"))
            }
        }
    }
}

/// Does the work of a command in the processes that share it: those that are there, or those that `flag` asks for. The device is
/// each process's own.
pub(crate) fn share(
    flag: ProcessesFlag,
    device: DeviceFlag,
    output: Option<&Path>,
    work: impl FnOnce(&Processes, DeviceFlag) -> Result,
) -> Result {
    let settings = ParallelSettings { processes: flag.processes, ..ParallelSettings::default() };
    let mut choice = device.choice();
    let logs = output.map_or(Logs::In(None), Logs::Beside);
    match Processes::join(&settings, &mut choice, logs)? {
        Some(processes) => processes.work(|processes| {
            processes.does_at_length("reading, and loading a model");
            work(processes, DeviceFlag { device: Some(choice) })
        }),
        None => launch(flag.processes, logs),
    }
}

/// Refuses more processes than there are GPUs, which are for one each.
pub(crate) fn check_devices(count: usize, device: DeviceChoice) -> Result {
    if count == 1 {
        return Ok(());
    }
    let gpus = Gpus::here();
    if device.among(&gpus).input()? != Device::Cpu && gpus.usable < count {
        let usable = gpus.usable;
        return Err(Failure::input(format!(
            "{count} processes were asked for, and libtorch can use {usable} GPUs, expected one for each; with `cpu` as the device, \
             processes share the CPU"
        )));
    }
    Ok(())
}

/// Number of this process and of all of them, if torchrun, Slurm or --processes has started it.
pub(crate) fn rank_and_size() -> Result<Option<(usize, usize)>> {
    Ok(Place::from_environment().input()?.map(|place| (place.rank, place.size)))
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
pub(crate) fn launch(count: usize, logs: Logs<'_>) -> Result {
    let interrupted = interrupt::flag();
    let mut started = Started::none()?;
    for rank in 0..count {
        let mut command = started.command(rank, count)?;
        command.args(std::env::args_os().skip(1));
        if rank > 0 {
            command.stdin(Stdio::null());
        }
        started.children.push(command.spawn().run()?);
    }
    started.wait(&mut || interrupted.swap(false, Ordering::SeqCst))?;
    started.outcome(logs)
}

/// Processes that were started here, by rank, and how they have ended.
pub(crate) struct Started {
    keeper: StoreKeeper,
    children: Vec<Child>,
    /// Ranks in the order of their ends.
    ends: Vec<(usize, ExitStatus)>,
    is_interrupted: bool,
}

impl Started {
    fn none() -> Result<Self> {
        let keeper = StoreKeeper::open().run()?;
        Ok(Self { keeper, children: Vec::new(), ends: Vec::new(), is_interrupted: false })
    }

    /// Starts this program with `arguments` as `count` processes that read `order`; see [`Started::told`].
    pub(crate) fn stage(count: usize, arguments: &[String], order: &str) -> Result<Self> {
        let mut started = Self::none()?;
        for rank in 0..count {
            let mut command = started.command(rank, count)?;
            command.args(arguments).stdin(Stdio::piped());
            command.stdout(if rank == 0 { Stdio::piped() } else { Stdio::null() });
            started.children.push(command.spawn().run()?);
        }
        for child in &mut started.children {
            if let Some(mut input) = child.stdin.take() {
                // One that has ended already has not read it, and says why by its end.
                let _ = input.write_all(order.as_bytes());
            }
        }
        Ok(started)
    }

    /// Standard output of the first process, if it was started so.
    pub(crate) fn told(&mut self) -> Option<ChildStdout> {
        self.children.first_mut()?.stdout.take()
    }

    /// Waits until all have ended. They are told to when `interrupts` says so, which is asked all the time, and a while after one of
    /// them has failed.
    pub(crate) fn wait(&mut self, interrupts: &mut dyn FnMut() -> bool) -> Result {
        let mut failed_at = None::<Instant>;
        let mut told = [false; 2];
        while self.ends.len() < self.children.len() {
            let before = self.ends.len();
            self.look()?;
            for (rank, status) in self.ends[before..].iter().filter(|(_, status)| !status.success()) {
                // Those that are left know it already if it has told them, and cannot know it if it was killed.
                let _ = self.keeper.tell_end(*rank, &ended(*status));
            }
            if interrupts() {
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

    /// This program, as a process among others.
    fn command(&self, rank: usize, count: usize) -> Result<Command> {
        let program = std::env::current_exe().run()?;
        let mut command = Command::new(program);
        let variables = [
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("WORLD_SIZE", count.to_string()),
            ("LOCAL_WORLD_SIZE", count.to_string()),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", self.keeper.port().to_string()),
            ("TORCHELASTIC_USE_AGENT_STORE", "True".to_owned()),
            (STARTED, "1".to_owned()),
        ];
        command.envs(variables).env_remove("TORCHELASTIC_RESTART_COUNT");
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_euclid(count).max(1);
        for name in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
            if std::env::var_os(name).is_none() {
                command.env(name, threads.to_string());
            }
        }
        if std::env::var_os("GLOO_SOCKET_IFNAME").is_none() {
            command.env("GLOO_SOCKET_IFNAME", "lo");
        }
        Ok(command)
    }

    fn signal(&self, signal: Signal) {
        let has_ended = |rank: usize| self.ends.iter().any(|(ended, _)| *ended == rank);
        for (_, child) in self.children.iter().enumerate().filter(|(rank, _)| !has_ended(*rank)) {
            // One that has ended meanwhile is none to be told.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    /// The failure as the first process has told it, or as it was seen from here.
    pub(crate) fn outcome(&self, logs: Logs<'_>) -> Result {
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
        let log = Some(logs.of(rank)).filter(|log| rank > 0 && log.exists());
        let more = log.map_or_else(String::new, |log| format!("; what it had to say is in {}", log.display()));
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
