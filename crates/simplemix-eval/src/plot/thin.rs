//! Curves with fewer points that look the same.

/// Keeps at most `most` points, by largest triangles (LTTB: Steinarsson 2013). Each bucket keeps the point that spans
/// the largest triangle with the point kept before it and the mean of the next bucket. The first and the last point are
/// kept.
pub(super) fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most || most < 3 {
        return points.to_vec();
    }
    let (inner, buckets) = (points.len() - 2, most - 2);
    let bucket = |i: usize| 1 + i * inner / buckets..1 + (i + 1) * inner / buckets;
    let mut kept = vec![points[0]];
    for i in 0..buckets {
        let next = if i + 1 < buckets { &points[bucket(i + 1)] } else { &points[points.len() - 1..] };
        let centre = mean(next);
        let before = kept[kept.len() - 1];
        let area = |p: &(f64, f64)| {
            ((before.0 - centre.0) * (p.1 - before.1) - (before.0 - p.0) * (centre.1 - before.1)).abs()
        };
        let largest = points[bucket(i)].iter().max_by(|a, b| area(a).total_cmp(&area(b)));
        kept.extend(largest);
    }
    kept.push(points[points.len() - 1]);
    kept
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let sum = points.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
    (sum.0 / count, sum.1 / count)
}

/// Outline of a noisy curve: the lowest and the highest point of each of `buckets` stretches, from left to right.
pub(super) fn outline(points: &[(f64, f64)], buckets: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(buckets.max(1)).max(1);
    let mut kept = Vec::with_capacity(2 * buckets);
    for stretch in points.chunks(size) {
        let least = stretch.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let most = stretch.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let mut both: Vec<(f64, f64)> = least.into_iter().chain(most).copied().collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        both.dedup();
        kept.extend(both);
    }
    kept
}

/// Running mean over an eighth of the curve to either side.
pub(super) fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 8).max(1);
    // Cumulative sums keep the cost linear in the length of the curve.
    let mut sums = vec![0.0];
    for (place, point) in points.iter().enumerate() {
        sums.push(sums[place] + point.1);
    }
    let near = |i: usize| {
        let (start, end) = (i.saturating_sub(reach), (i + reach + 1).min(points.len()));
        (points[i].0, (sums[end] - sums[start]) / (end - start) as f64)
    };
    (0..points.len()).map(near).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_straight_line() {
        let line: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        assert_eq!(running_mean(&line)[1..8], line[1..8]);
    }

    #[test]
    fn an_outline_holds_the_extremes() {
        let noise: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), (f64::from(i) * 7.3).sin())).collect();
        let kept = outline(&noise, 200);
        assert!(kept.len() <= 400 && kept.is_sorted_by(|a, b| a.0 <= b.0));
        let highest = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
        assert_eq!(highest(&kept), highest(&noise));
        assert_eq!(outline(&[], 5), []);
    }

    #[test]
    fn a_peak_is_kept() {
        let line: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), if i == 500 { 9.0 } else { 0.0 })).collect();
        let thinned = thinned(&line, 50);
        assert_eq!(thinned.len(), 50);
        assert!(thinned.contains(&(500.0, 9.0)));
    }

    #[test]
    fn few_points_stay_as_they_are() {
        let few = [(0.0, 1.0), (1.0, 2.0)];
        assert_eq!(thinned(&few, 2), few);
        assert_eq!(thinned(&few, 100), few);
    }
}
