/// A quantity recorded at each step of a case.
package struct FixtureSteps: Sendable {
    /// One tensor per step, or a single one with all steps along its first dimension.
    private let tensors: [FixtureTensor]
    private let isStacked: Bool
    package let count: Int
    /// Shape of one step's tensor.
    package let shape: [Int]

    init(stacked tensor: FixtureTensor) throws {
        let shape = try tensor.shape()
        (tensors, isStacked) = ([tensor], true)
        (count, self.shape) = (shape.first ?? 1, Array(shape.dropFirst()))
    }

    init(apart tensors: [FixtureTensor]) throws {
        (self.tensors, isStacked) = (tensors, false)
        (count, shape) = (tensors.count, try tensors[0].shape())
    }

    /// Elements of one step.
    package var elements: Int { shape.reduce(1, *) }

    /// The values of a step.
    package func floats(_ step: Int) throws -> [Float] {
        try isStacked ? tensors[0].floats(row: step) : tensors[step].floats()
    }

    /// The integers of a step, stored as an integer or floating-point type.
    package func integers(_ step: Int) throws -> [Int] {
        guard isStacked else { return try tensors[step].integers() }
        return Array(try tensors[0].integers()[step * elements..<(step + 1) * elements])
    }
}

extension FixtureCase {
    /// A quantity of each step: stacked in NAME, [steps, …], or separate in NAME.0, NAME.1, …
    ///
    /// - Parameters:
    ///   - names: its name and alternative names.
    ///   - count: the required number of steps.
    ///   - constant: number of elements per step; if given, a single tensor of this size may apply to all
    ///     steps.
    package func steps(_ names: [String], count: Int, constant size: Int? = nil) throws -> FixtureSteps {
        guard let found = try findSteps(names) else { throw missing(names) }
        if let size, let tensor = find(names), try tensor.shape().reduce(1, *) == size {
            return try FixtureSteps(apart: Array(repeating: tensor, count: count))
        }
        guard found.count == count else {
            throw FixtureError(
                path, "tensor '\(names[0])' is of \(found.count) steps, expected \(count) (docs/fixtures.md)")
        }
        return found
    }

    /// A quantity that a case may lack, with any number of steps.
    package func findSteps(_ names: [String]) throws -> FixtureSteps? {
        if let tensor = find(names) { return try FixtureSteps(stacked: tensor) }
        for name in names {
            let apart = sequence(state: 0) { step in
                defer { step += 1 }
                return find(["\(name).\(step)", "\(name)_\(step)", "step.\(step).\(name)", "\(step).\(name)"])
            }
            let tensors = Array(apart)
            if !tensors.isEmpty { return try FixtureSteps(apart: tensors) }
        }
        return nil
    }

    /// A number for each step, from the tensors or from a list in `case.json`; nil if there is neither.
    package func trace(_ names: [String], count: Int) throws -> [Double]? {
        let values: [Double]
        if let steps = try findSteps(names) {
            guard steps.elements == 1 else {
                throw FixtureError(
                    path, "'\(names[0])' has the shape \(steps.shape) a step, expected a number")
            }
            values = try (0..<steps.count).map { Double(try steps.floats($0)[0]) }
        } else if settings.find(names)?.arrayValue != nil, let list = try settings.numbers(names) {
            values = list
        } else {
            return nil
        }
        guard values.count == count else {
            throw FixtureError(
                path, "'\(names[0])' has \(values.count) values, expected one for each of \(count) steps")
        }
        return values
    }

    /// A number for each step that the case must contain.
    package func requiredTrace(_ names: [String], count: Int) throws -> [Double] {
        guard let values = try trace(names, count: count) else { throw missing(names) }
        return values
    }
}
