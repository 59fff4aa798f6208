import Datasets
import Testing

@Suite struct DataOrderTests {
    @Test(arguments: [1, 2, 3, 5, 8, 31, 32, 33, 38, 63, 64, 65, 100, 1000, 4097, 50000])
    func everyEpochVisitsEverySampleOnce(count: Int) {
        let order = DataOrder(count: count, seed: 7)
        for epoch in [0, 1, 9] {
            var visits = [Int](repeating: 0, count: count)
            for i in 0..<count { visits[order.index(at: epoch * count + i)] += 1 }
            #expect(visits.allSatisfy { $0 == 1 }, "epoch \(epoch) of \(count)")
        }
    }

    @Test func epochsAndSeedsDiffer() {
        let a = DataOrder(count: 1000, seed: 1)
        let b = DataOrder(count: 1000, seed: 2)
        let first = (0..<1000).map { a.index(at: $0) }
        let second = (1000..<2000).map { a.index(at: $0) }
        let other = (0..<1000).map { b.index(at: $0) }
        // Two random permutations of 1000 elements agree at one position on average.
        for (x, y) in [(first, second), (first, other), (first, Array(0..<1000))] {
            #expect(zip(x, y).count { $0 == $1 } < 10)
        }
        #expect(a.epoch(at: 999) == 0 && a.epoch(at: 1000) == 1)
    }

    /// The first position of each sample, and its successor, are uniformly distributed over epochs.
    @Test(arguments: [2, 3, 10, 38])
    func placesAreUniform(count: Int) {
        let epochs = 20_000
        let order = DataOrder(count: count, seed: 3)
        var places = [Int](repeating: 0, count: count * count)
        for epoch in 0..<epochs {
            for place in 0..<min(count, 3) {
                places[place * count + order.index(at: epoch * count + place)] += 1
            }
        }
        for place in 0..<min(count, 3) {
            let expected = Double(epochs) / Double(count)
            let chiSquare = (0..<count).reduce(0.0) { sum, index in
                let difference = Double(places[place * count + index]) - expected
                return sum + difference * difference / expected
            }
            // Mean count - 1, variance 2 (count - 1); allow five standard deviations.
            let freedom = Double(count - 1)
            #expect(chiSquare < freedom + 5 * (2 * freedom).squareRoot(), "place \(place) of \(count)")
        }
    }

    @Test func neighboursAreUniform() {
        let (count, epochs) = (12, 20_000)
        let order = DataOrder(count: count, seed: 11)
        var pairs = [Int](repeating: 0, count: count * count)
        for epoch in 0..<epochs {
            let first = order.index(at: epoch * count)
            pairs[first * count + order.index(at: epoch * count + 1)] += 1
        }
        let cells = Double(count * (count - 1))
        let expected = Double(epochs) / cells
        var chiSquare = 0.0
        for a in 0..<count {
            for b in 0..<count {
                if a == b {
                    #expect(pairs[a * count + b] == 0)
                } else {
                    let difference = Double(pairs[a * count + b]) - expected
                    chiSquare += difference * difference / expected
                }
            }
        }
        #expect(chiSquare < cells - 1 + 5 * (2 * (cells - 1)).squareRoot())
    }

    /// A resumed run must continue in the same order, even with a later version of the program.
    @Test func orderIsFixedForEver() {
        let small = DataOrder(count: 38, seed: 0)
        #expect((0..<6).map { small.index(at: $0) } == [27, 14, 20, 11, 33, 6])
        let large = DataOrder(count: 30_000, seed: 42)
        #expect((29_998..<30_003).map { large.index(at: $0) } == [10426, 15339, 27344, 27316, 27950])
    }

    @Test func flipsAreFairAndDependOnEveryPartOfTheKey() {
        var heads = 0
        var differences = [0, 0, 0]
        let n: UInt64 = 4000
        for i in 0..<n {
            let flip = SampleKey(seed: 5, step: i / 64, sample: i % 64).isFlipped
            heads += flip ? 1 : 0
            differences[0] += flip != SampleKey(seed: 6, step: i / 64, sample: i % 64).isFlipped ? 1 : 0
            differences[1] += flip != SampleKey(seed: 5, step: i / 64 + 1, sample: i % 64).isFlipped ? 1 : 0
            differences[2] += flip != SampleKey(seed: 5, step: i / 64, sample: i % 64 + 1).isFlipped ? 1 : 0
        }
        // Six standard deviations of a fair coin.
        let spread = 3 * Double(n).squareRoot()
        for count in differences + [heads] { #expect(abs(Double(count) - Double(n) / 2) < spread) }
    }
}
