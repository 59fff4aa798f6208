/// Detects duplicates among the samples and near-copies of training images, which distances between
/// distributions do not show.
///
/// Distances depend on the features, so the threshold is relative to the reference: to the median distance
/// from a reference image to its nearest neighbour, `referenceSpacing`. Different images are rarely closer
/// than a quarter of it.
struct Diversity {
    static let closeness = 0.25

    let neighbours: NeighbourMeasures

    private var limit: Double { Self.closeness * neighbours.referenceSpacing }

    /// Number of samples that are closer to another sample than the threshold.
    var duplicates: Int { neighbours.ownNearest.count { $0 < limit } }
    /// Number of samples that are closer to a training image than the threshold, as they are or mirrored.
    var memorised: Int { neighbours.nearestDistances.count { $0 < limit } }

    /// A sample and its nearest training image, and whether the mirrored sample is closer to it.
    struct Pair {
        let sample: Int
        package let reference: Int
        let isMirrored: Bool
    }

    /// The samples nearest to a training image, nearest first.
    func closest(_ count: Int) -> [Pair] {
        let order = neighbours.nearestDistances.indices.sorted {
            (neighbours.nearestDistances[$0], $0) < (neighbours.nearestDistances[$1], $1)
        }
        return order.prefix(count).map {
            Pair(sample: $0, reference: neighbours.nearest[$0], isMirrored: neighbours.isMirrored[$0])
        }
    }
}
