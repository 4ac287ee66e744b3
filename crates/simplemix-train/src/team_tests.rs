//! Ranks that are threads of a test.

use simplemix_torch::group::{GroupOptions, Place, StoreKeeper};

use super::*;

/// Runs `work` on each of `size` ranks; results by rank.
pub(crate) fn on_ranks<T: Send>(size: usize, work: impl Fn(&Team) -> T + Sync) -> Vec<T> {
    let keeper = StoreKeeper::open().unwrap();
    let run = |place: Place| {
        let mut options = GroupOptions::for_device(Device::Cpu);
        options.interface = Some("lo".to_owned());
        let group = Arc::new(Group::open(&place, Device::Cpu, &options).unwrap());
        let found = work(&Team::new(Arc::clone(&group), Device::Cpu));
        Arc::into_inner(group).unwrap().leave().unwrap();
        found
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..size).map(|rank| keeper.place(rank, size)).map(|place| scope.spawn(move || run(place))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_row_is_put_together_from_ranges_of_any_ranks() {
    let found = on_ranks(3, |team| {
        // Rank 1 has nothing of it.
        let range = |rank: usize| [Some(0..2), None, Some(2..5)][rank].clone();
        let own = [Some([1f32, 2.0].as_slice()), None, Some(&[3.0, -0.0, 5.0])][team.rank()].map(Tensor::from_slice);
        let whole = team.assemble((5, Kind::Float), range, own.as_ref(), "gathering").unwrap();
        Vec::<f32>::try_from(whole).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    });
    assert_eq!(found, vec![[1.0, 2.0, 3.0, -0.0, 5.0].map(f32::to_bits).to_vec(); 3]);
}
