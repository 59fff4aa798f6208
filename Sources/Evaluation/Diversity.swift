/// What samples are among themselves and to the training images, beside the distances of whole distributions.
///
/// Distances depend on the features; what is near is told by the reference itself: the median distance of a reference
/// image to the nearest other, `spacing`. A quarter of that is closer than different pictures usually come.
struct Diversity {
    static let closeness = 0.25

    let neighbours: NeighbourMeasures

    private var limit: Double { Self.closeness * neighbours.referenceSpacing }

    /// Samples to which another sample is closer than different pictures come.
    var duplicates: Int { neighbours.ownNearest.count { $0 < limit } }
    /// Samples to which, as they are or mirrored, a training image is that close.
    var memorised: Int { neighbours.nearestDistances.count { $0 < limit } }

    /// A sample and its nearest training image; whether it is nearer to that mirrored.
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
