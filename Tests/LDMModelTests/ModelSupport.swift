import Foundation
import TensorCore
import TestSupport

/// The parameters whose gradients differ from the golden ones by more than `tolerance`. Some gradients are
/// zero except for rounding (a key's bias, which softmax cancels), so the error of small ones is relative to
/// the largest gradient.
func wrongGradients(_ store: ParameterStore, _ fixture: FixtureCase, tolerance: Double) throws -> [String] {
    var expected: [String: [Float]] = [:]
    for parameter in store.parameters {
        expected[parameter.name] = try fixture.tensor(["grad.\(parameter.name)"]).floats()
    }
    let largest = expected.values.map { norm($0) / Double($0.count).squareRoot() }.max() ?? 0
    return store.parameters.compactMap { parameter in
        let golden = expected[parameter.name] ?? []
        let error = relativeNorm(
            Array(parameter.gradient), golden, floor: 1e-2 * largest * Double(golden.count).squareRoot())
        return error > tolerance ? "\(parameter.name): \(error)" : nil
    }
}

/// The values (or gradients) of all parameters by name.
func snapshot(
    _ store: ParameterStore, _ part: (Parameter) -> UnsafeMutableBufferPointer<Float> = { $0.values }
) -> [String: [Float]] {
    Dictionary(uniqueKeysWithValues: store.parameters.map { ($0.name, Array(part($0))) })
}

/// Every available backend of this build, for parameterized tests.
let backends = Backend.allCases.filter(\.isAvailable)
