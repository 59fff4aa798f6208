import CKernels
import TensorCore

/// The blocks of a model, such as `down_blocks.0` or `mid_block`, as parts of the flat gradient buffer, for the
/// gradient norms of the blocks.
package struct GradientBlocks: Sendable {
    /// In the order of the parameters.
    package private(set) var names: [String] = []
    /// For each block, the ranges of its parameters.
    private var ranges: [[Range<Int>]] = []

    package init(_ store: ParameterStore) {
        var places: [String: Int] = [:]
        for parameter in store.parameters {
            let name = Self.block(of: parameter.name)
            let place = places[name] ?? names.count
            if place == names.count {
                places[name] = place
                names.append(name)
                ranges.append([])
            }
            ranges[place].append(parameter.range)
        }
    }

    /// The block of a parameter: the first component of its name (for an autoencoder, after `encoder` or
    /// `decoder`), and its index. `down_blocks.0.resnets.1.conv1.weight` is in `down_blocks.0`,
    /// `encoder.conv_in.bias` in `encoder.conv_in`.
    package static func block(of name: String) -> String {
        let words = name.split(separator: ".")
        var count = words.first == "encoder" || words.first == "decoder" ? 2 : 1
        if count < words.count, words[count].allSatisfy(\.isNumber) { count += 1 }
        return words.prefix(count).joined(separator: ".")
    }

    /// For each block, the sum of squares of its gradients within `slice`. Summed over slices that cover the
    /// buffer, they are the squared norms of the blocks.
    func squares(of gradients: UnsafePointer<Float>, in slice: Range<Int>) -> [Double] {
        ranges.map { ranges in
            ranges.reduce(0) { sum, range in
                let own = range.clamped(to: slice)
                return own.isEmpty ? sum : sum + ck_sum_of_squares(own.count, gradients + own.lowerBound)
            }
        }
    }

    func norms(squares: some Sequence<Double>) -> [(name: String, value: Double)] {
        zip(names, squares).map { ($0, $1.squareRoot()) }
    }
}
