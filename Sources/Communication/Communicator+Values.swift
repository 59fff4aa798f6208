import Foundation

// Convenience operations built on the collectives: values instead of buffers, and agreement.

extension Communicator {
    /// Whether this is rank 0, which prints and writes output that exists once per run.
    package var isRoot: Bool { rank == 0 }

    // MARK: Reductions

    package func allReduceSum(_ values: UnsafeMutableBufferPointer<Float>) throws(CommunicationError) {
        try allReduce(values, .sum)
    }

    /// The mean over the ranks: a sum with bit-identical results on all ranks, multiplied by 1 / size.
    package func allReduceMean(_ values: UnsafeMutableBufferPointer<Float>) throws(CommunicationError) {
        try allReduce(values, .sum)
        let factor = 1 / Float(size)
        for index in values.indices { values[index] *= factor }
    }

    package func allReduceSum(_ values: inout [Double]) throws(CommunicationError) {
        try reduce(&values, .sum)
    }

    package func allReduceMean(_ values: inout [Double]) throws(CommunicationError) {
        try reduce(&values, .sum)
        for index in values.indices { values[index] /= Double(size) }
    }

    package func allReduceMax(_ values: inout [Double]) throws(CommunicationError) {
        try reduce(&values, .max)
    }

    package func allReduceMin(_ values: inout [Double]) throws(CommunicationError) {
        try reduce(&values, .min)
    }

    package func allReduceSum(_ value: Double) throws(CommunicationError) -> Double {
        var values = [value]
        try reduce(&values, .sum)
        return values[0]
    }

    package func allReduceMax(_ value: Double) throws(CommunicationError) -> Double {
        var values = [value]
        try reduce(&values, .max)
        return values[0]
    }

    package func allReduceMin(_ value: Double) throws(CommunicationError) -> Double {
        var values = [value]
        try reduce(&values, .min)
        return values[0]
    }

    package func allReduceSum(_ value: Int) throws(CommunicationError) -> Int { try reduce(value, .sum) }
    package func allReduceMax(_ value: Int) throws(CommunicationError) -> Int { try reduce(value, .max) }
    package func allReduceMin(_ value: Int) throws(CommunicationError) -> Int { try reduce(value, .min) }

    // MARK: Agreement

    /// Whether the condition is true on all ranks.
    package func allAgree(_ condition: Bool) throws(CommunicationError) -> Bool {
        try reduce(condition ? 1 : 0, .min) == 1
    }

    /// Whether the condition is true on at least one rank.
    package func anyAgree(_ condition: Bool) throws(CommunicationError) -> Bool {
        try reduce(condition ? 1 : 0, .max) == 1
    }

    /// Whether all ranks pass the same number, such as a replica's checksum, a step or a file's fingerprint.
    package func allEqual(_ value: UInt64) throws(CommunicationError) -> Bool {
        let bits = Int(bitPattern: UInt(value))
        let lowest = try reduce(bits, .min)
        let highest = try reduce(bits, .max)
        return lowest == highest
    }

    // MARK: Broadcast

    /// The data of `root`, of any length; the argument of the other ranks is ignored.
    package func broadcast(_ data: Data, root: Int = 0) throws(CommunicationError) -> Data {
        Data(try broadcast([UInt8](data), root: root))
    }

    package func broadcast(_ text: String, root: Int = 0) throws(CommunicationError) -> String {
        String(decoding: try broadcast([UInt8](text.utf8), root: root), as: UTF8.self)
    }

    /// The bytes of `root`, of any length; the argument of the other ranks is ignored.
    package func broadcast(_ bytes: [UInt8], root: Int = 0) throws(CommunicationError) -> [UInt8] {
        guard size > 1 else { return bytes }
        var length = rank == root ? Int64(bytes.count) : 0
        try unlessFailed(
            withUnsafeMutableBytes(of: &length) { buffer in
                Result { () throws(CommunicationError) in try broadcast(buffer, root: root) }
            })
        var received = rank == root ? bytes : [UInt8](repeating: 0, count: Int(length))
        try unlessFailed(
            received.withUnsafeMutableBytes { buffer in
                Result { () throws(CommunicationError) in try broadcast(buffer, root: root) }
            })
        return received
    }

    /// The value of `root`, sent as JSON; the argument of the other ranks is ignored.
    ///
    /// - Throws: `CommunicationError`, or the coder's error, which is the same on all ranks only if all ranks
    ///   run the same program.
    package func broadcast<Value: Codable>(_ value: Value, root: Int = 0) throws -> Value {
        guard size > 1 else { return value }
        let json = rank == root ? try messageEncoder().encode([value]) : Data()
        let decoded = try messageDecoder().decode([Value].self, from: try broadcast(json, root: root))
        return rank == root ? value : decoded[0]
    }

    // MARK: Gather

    package func allGather(_ data: Data) throws(CommunicationError) -> [Data] {
        try allGather([UInt8](data)).map { Data($0) }
    }

    package func allGather(_ text: String) throws(CommunicationError) -> [String] {
        try allGather([UInt8](text.utf8)).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The values of all ranks, in rank order, sent as JSON.
    package func allGather<Value: Codable>(_ value: Value) throws -> [Value] {
        guard size > 1 else { return [value] }
        let everyone = try allGather(try messageEncoder().encode([value]))
        return try everyone.map { try messageDecoder().decode([Value].self, from: $0)[0] }
    }

    // MARK: Implementation

    private func reduce(_ values: inout [Double], _ reduction: Reduction) throws(CommunicationError) {
        try unlessFailed(
            values.withUnsafeMutableBufferPointer { buffer in
                Result { () throws(CommunicationError) in try allReduce(buffer, reduction) }
            })
    }

    private func reduce(_ value: Int, _ reduction: Reduction) throws(CommunicationError) -> Int {
        var number = Int64(value)
        try unlessFailed(
            withUnsafeMutablePointer(to: &number) { pointer in
                Result { () throws(CommunicationError) in
                    try allReduce(UnsafeMutableBufferPointer(start: pointer, count: 1), reduction)
                }
            })
        return Int(number)
    }
}

/// Restores the typed error from the standard library's closures, which only rethrow `any Error`.
func unlessFailed<Success>(_ result: Result<Success, CommunicationError>)
    throws(CommunicationError) -> Success
{
    try result.get()
}

private func messageEncoder() -> JSONEncoder {
    let encoder = JSONEncoder()
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
        positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return encoder
}

private func messageDecoder() -> JSONDecoder {
    let decoder = JSONDecoder()
    decoder.nonConformingFloatDecodingStrategy = .convertFromString(
        positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return decoder
}
