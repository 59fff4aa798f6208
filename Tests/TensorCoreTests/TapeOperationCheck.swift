import TensorCore
import Testing

/// The check that every operation passes, on its golden case in Fixtures/operations.safetensors:
///
/// - the result and the gradients of inputs and parameters agree with PyTorch, in fp32 and bf16;
/// - gradients agree with central finite differences (fp32);
/// - a second run in poisoned memory is bit-identical, so no uninitialized memory is read;
/// - with `accumulatesGradients`, and only then, parameter gradients accumulate;
/// - among other operations, with shared memory and gradients from other operations, the results are the
///   same, also without a backward pass.
///
/// - Parameters:
///   - backends: both, for operations that backends implement.
///   - finiteDifferences: false if rounding errors exceed them.
///   - tolerance: factor for all tolerances; above 1 for compositions of many operations.
func checkOperation(
    _ name: String, types: [DType] = [.float32, .bfloat16], backends: [Backend] = [.fastest],
    finiteDifferences: Bool = true, tolerance: Double = 1,
    sourceLocation: SourceLocation = #_sourceLocation,
    _ record: (Tape, Operands) -> RecordedOperation
) throws {
    let fixture = try OperationFixture(name)
    for dtype in types {
        for backend in backends where backend.isAvailable {
            let check = OperationCheck(
                fixture: fixture, dtype: dtype, backend: backend, tolerance: tolerance,
                sourceLocation: sourceLocation)
            try check.run(finiteDifferences: finiteDifferences && dtype == .float32, record)
        }
    }
}

/// The check for an operation that returns a tensor.
func checkOperation(
    _ name: String, types: [DType] = [.float32, .bfloat16], backends: [Backend] = [.fastest],
    finiteDifferences: Bool = true, tolerance: Double = 1,
    sourceLocation: SourceLocation = #_sourceLocation,
    output record: (Tape, Operands) -> Tensor
) throws {
    try checkOperation(
        name, types: types, backends: backends, finiteDifferences: finiteDifferences, tolerance: tolerance,
        sourceLocation: sourceLocation
    ) { RecordedOperation(output: record($0, $1)) }
}

private struct OperationCheck {
    let fixture: OperationFixture
    let dtype: DType
    let backend: Backend
    let tolerance: Double
    let sourceLocation: SourceLocation

    private var isExact: Bool { dtype == .float32 }
    private var forwardTolerance: Double { tolerance * (isExact ? 1e-5 : 2e-2) }
    private var gradientTolerance: Double { tolerance * (isExact ? 1e-4 : 5e-2) }

    func run(finiteDifferences: Bool, _ record: (Tape, Operands) -> RecordedOperation) throws {
        let alone = try OperationRun(fixture, dtype: dtype, backend: backend, .alone, record)
        alone.poison(parameterGradients: true)
        let first = alone.run()
        try compare(first, "alone")
        try expectDifferentiated(first)

        alone.poison(parameterGradients: true)
        expectSameBits(alone.run(), first, "second run")
        alone.poison(parameterGradients: false)
        let doubled = alone.run(accumulates: true)
        for parameter in fixture.parameters {
            let twice = (first.gradients[parameter] ?? []).map { 2 * $0 }
            expectClose(doubled.gradients[parameter] ?? [], twice, 1e-6, "\(parameter), accumulated")
        }

        let among = try OperationRun(fixture, dtype: dtype, backend: backend, .amongOthers, record)
        among.poison(parameterGradients: true)
        let amongFirst = among.run()
        try compare(amongFirst, "among others", added: among.addedGradients)
        among.poison(parameterGradients: true)
        expectSameBits(among.run(), amongFirst, "second run among others")

        let inference = try OperationRun(fixture, dtype: dtype, backend: backend, .inference, record)
        inference.poison(parameterGradients: false)
        let bare = inference.run()
        #expect(
            bare.bits["output"] == first.bits["output"] && bare.bits["sums"] == first.bits["sums"],
            "\(what) without gradients differs", sourceLocation: sourceLocation)

        guard finiteDifferences else { return }
        for name in fixture.inputs + fixture.parameters {
            try compareDifferences(alone, name, first.gradients[name] ?? [])
        }
    }

    private var what: String { "\(fixture.name), \(dtype.rawValue), \(backend.rawValue):" }

    /// Compares the results with the golden values.
    private func compare(
        _ results: OperationRun.Results, _ place: String, added: [String: [Float]] = [:]
    ) throws {
        if fixture.contains("out") {
            expectClose(results.output, try fixture.floats("out"), forwardTolerance, "result \(place)")
        }
        if fixture.contains("sums") {
            let sums = results.sums.map { Float($0) }
            expectClose(sums, try fixture.floats("sums"), forwardTolerance, "sums \(place)")
        }
        for name in fixture.inputs + fixture.parameters {
            var golden = try fixture.floats("grad.\(name)")
            for (index, value) in (added[name] ?? []).enumerated() { golden[index] += value }
            expectClose(
                results.gradients[name] ?? [], golden, gradientTolerance, "gradient of \(name) \(place)")
        }
    }

    /// Checks that the fixture tests anything at all.
    private func expectDifferentiated(_ results: OperationRun.Results) throws {
        #expect(
            fixture.contains("out") || fixture.contains("sums"), "\(what) no golden result",
            sourceLocation: sourceLocation)
        #expect(
            Set(results.gradients.keys) == Set(fixture.inputs + fixture.parameters),
            "\(what) gradients of \(results.gradients.keys.sorted())", sourceLocation: sourceLocation)
    }

    private func compareDifferences(_ run: OperationRun, _ name: String, _ gradient: [Float]) throws {
        let largest = Double(gradient.map(abs).max() ?? 0)
        // Steps of 2^-6 and fp32 sums leave about three digits.
        let allowed = 5e-3 * tolerance * max(largest, 0.05)
        for (index, value) in try run.differences(name, limit: 64) {
            let error = abs(value - Double(gradient[index]))
            #expect(
                error <= allowed,
                "\(what) gradient of \(name)[\(index)] is \(gradient[index]), differences give \(value)",
                sourceLocation: sourceLocation)
            if !(error <= allowed) { return }
        }
    }

    private func expectSameBits(_ a: OperationRun.Results, _ b: OperationRun.Results, _ place: String) {
        let (bitsA, bitsB) = (a.bits, b.bits)
        let differing = Set(bitsA.keys).union(bitsB.keys).filter { bitsA[$0] != bitsB[$0] }.sorted()
        #expect(differing == [], "\(what) \(place) differs in its bits", sourceLocation: sourceLocation)
    }

    private func expectClose(_ found: [Float], _ golden: [Float], _ allowed: Double, _ part: String) {
        let error = relativeError(found, golden)
        #expect(
            error <= allowed, "\(what) \(part): off by \(error) of its largest value, allowed \(allowed)",
            sourceLocation: sourceLocation)
    }
}

/// Largest difference divided by the largest expected magnitude; infinite if counts differ or a value is not
/// finite.
func relativeError(_ found: [Float], _ expected: [Float]) -> Double {
    guard found.count == expected.count, found.allSatisfy(\.isFinite) else { return .infinity }
    let difference = zip(found, expected).map { abs(Double($0) - Double($1)) }.max() ?? 0
    let magnitude = expected.map { Double(abs($0)) }.max() ?? 0
    return difference / max(magnitude, 1e-6)
}
