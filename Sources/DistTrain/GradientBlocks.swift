import CKernels
import TensorCore

/// The blocks of a model, `down_blocks.0` or `mid_block`, as parts of the flat gradient buffer, for norms by block.
package struct GradientBlocks: Sendable {
    /// In the order of the parameters.
    package private(set) var names: [String] = []
    /// Of each block, its parameters'.
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

    /// The block of a parameter: what its name begins with, one word, behind an autoencoder's half, and its number.
    /// `down_blocks.0.resnets.1.conv1.weight` is of `down_blocks.0`, `encoder.conv_in.bias` of `encoder.conv_in`.
    package static func block(of name: String) -> String {
        let words = name.split(separator: ".")
        var count = words.first == "encoder" || words.first == "decoder" ? 2 : 1
        if count < words.count, words[count].allSatisfy(\.isNumber) { count += 1 }
        return words.prefix(count).joined(separator: ".")
    }

    /// Of each block, the sum of squares of what lies in `slice`; over slices that cover the buffer they add up to the
    /// squares of the blocks' norms.
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
