import DistTrain
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

/// Compares power-function averages with Karras et al. 2024, and with numpy and scipy: Fixtures/ema/make_ema.py.
@Suite struct AverageProfileTests {
    private let golden: JSONValue

    init() throws {
        let file = URL(filePath: fixturePath("ema/ema.json"))
        golden = try JSONValue(parsing: [UInt8](Data(contentsOf: file))[...])
    }

    private func rows(_ key: String) throws -> [JSONValue] { try #require(golden[key]?.arrayValue) }

    private func number(_ value: JSONValue?) throws -> Double { try #require(value?.doubleValue) }

    private func numbers(_ value: JSONValue?) throws -> [Double] {
        try #require(value?.arrayValue).map { try number($0) }
    }

    private func profile(_ pair: JSONValue?) throws -> PowerProfile {
        let pair = try numbers(pair)
        return PowerProfile(sigmaRel: pair[0], step: Int(pair[1]))
    }

    private func stored(_ steps: [Double]) -> [PowerProfile] {
        steps.flatMap { step in [0.05, 0.1].map { PowerProfile(sigmaRel: $0, step: Int(step)) } }
    }

    // MARK: Widths

    /// The paper gives 16.97 and 6.94, section 3.1.
    @Test func exponentsOfWidths() throws {
        #expect(abs(PowerProfile.gamma(sigmaRel: 0.05) - 16.97) < 0.005)
        #expect(abs(PowerProfile.gamma(sigmaRel: 0.10) - 6.94) < 0.005)
        for row in try rows("gammas") {
            let (sigma, expected) = (try number(row["sigma"]), try number(row["gamma"]))
            // numpy's eigenvalues have an error of about 1e-13 of the largest root's terms.
            #expect(abs(PowerProfile.gamma(sigmaRel: sigma) - expected) < 1e-10 * (1 + expected))
        }
    }

    @Test(arguments: [1e-6, 1e-3, 0.03, 0.1, 0.25, 0.288, 0.28867])
    func widthsReadBack(sigma: Double) {
        let gamma = PowerProfile.gamma(sigmaRel: sigma)
        #expect(gamma > 0)
        #expect(abs(PowerProfile.sigmaRel(gamma: gamma) - sigma) < 1e-12)
    }

    @Test func theWidestIsTheMeanOfAll() {
        #expect(abs(PowerProfile.sigmaLimit - 1 / 12.0.squareRoot()) < 1e-15)
    }

    // MARK: Products and fits

    @Test func productsAreIntegrals() throws {
        for row in try rows("products") {
            let (a, b) = (try profile(row["a"]), try profile(row["b"]))
            let expected = try number(row["value"])
            #expect(abs(a.product(b) - expected) < 1e-10 * expected, "\(a), \(b)")
            #expect(a.product(b) == b.product(a))
        }
    }

    /// The golden value is a least-squares fit on 400,000 points of the profiles, so it has fewer correct digits.
    @Test func fitsAreLeastSquares() throws {
        for row in try rows("fits") {
            let steps = try numbers(row["steps"])
            let wanted = PowerProfile(sigmaRel: try number(row["sigma"]), step: Int(try #require(steps.last)))
            let fit = ProfileFit(wanted, from: stored(steps))
            for (found, expected) in zip(fit.factors, try numbers(row["factors"])) {
                #expect(abs(found - expected) < 1e-6 * (1 + abs(expected)), "\(wanted)")
            }
            #expect(abs(fit.factors.reduce(0, +) - 1) < 1e-12)
            #expect(abs(fit.residual - (try number(row["residual"]))) < 1e-6)
        }
    }

    @Test func whatIsStoredIsMet() {
        let stored = stored([10, 20, 30])
        let fit = ProfileFit(stored[3], from: stored)
        for (index, factor) in fit.factors.enumerated() {
            #expect(abs(factor - (index == 3 ? 1 : 0)) < 1e-9)
        }
        #expect(fit.residual < 1e-7)
    }

    /// Listing an average twice makes the system singular; the second one is ignored.
    @Test func repeatedProfilesAreHarmless() {
        let stored = stored([25, 50, 75, 100])
        let wanted = PowerProfile(sigmaRel: 0.08, step: 100)
        let once = ProfileFit(wanted, from: stored)
        let twice = ProfileFit(wanted, from: stored.flatMap { [$0, $0] })
        #expect(abs(twice.residual - once.residual) < 1e-9)
        for (index, factor) in once.factors.enumerated() {
            #expect(abs(twice.factors[2 * index] - factor) < 1e-9 && twice.factors[2 * index + 1] == 0)
        }
    }

    @Test func moreSnapshotsFitBetter() {
        let residuals = [4, 8, 16, 32].map { count -> Double in
            let steps = (1...count).map { Double(1600 / count * $0) }
            return ProfileFit(PowerProfile(sigmaRel: 0.08, step: 1600), from: stored(steps)).residual
        }
        // The table of docs/ema.md.
        for (found, expected) in zip(residuals, [0.030, 0.011, 0.0030, 0.00076]) {
            #expect(abs(found / expected - 1) < 0.05, "\(residuals)")
        }
    }

    // MARK: Averages

    /// Compares updates in fp32 with the weighted sum of all weights in double precision.
    @Test(arguments: [0.05, 0.2])
    func averagesTakeEachUpdatesShare(sigma: Double) throws {
        let weights = try numbers(golden["weights"])
        // The initial value does not contribute.
        var value: Float = 99
        let average = WeightAverage(&value, count: 1, .init(sigmaRel: sigma))
        for (update, expected) in try numbers(golden["averages"]?["\(sigma)"]).enumerated() {
            value = Float(weights[update])
            average.step(update: update, &value)
            // Three rounding errors per update, of numbers below 3, which decay with the weights.
            #expect(abs(Double(average.values[0]) - expected) < 2e-6, "update \(update)")
        }
    }

    @Test func names() {
        #expect(AverageProfile.exponential(decay: 0.9999).name == "ema-0.9999")
        #expect(AverageProfile.power(sigmaRel: 0.1).name == "ema-power-0.1")
        #expect(AverageProfile(name: "ema-power-0.10") == .power(sigmaRel: 0.1))
        #expect(AverageProfile(name: "ema-0.99") == .exponential(decay: 0.99))
        for name in ["unet", "ema", "ema-", "ema-power-", "ema-power", "exp_avg"] {
            #expect(AverageProfile(name: name) == nil)
        }
        let profiles = ["ema-power-0.2", "ema-0.99", "ema-power-0.05", "ema-0.999"].compactMap {
            AverageProfile(name: $0)
        }
        #expect(
            profiles.sorted().map(\.name) == ["ema-power-0.05", "ema-power-0.2", "ema-0.99", "ema-0.999"])
    }
}
