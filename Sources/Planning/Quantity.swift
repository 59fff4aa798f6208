/// Parses rates and times in common notations.
package enum Quantity {
    /// Parses "10G", "100Mbit" or "2.5gbit/s" in bits/s; nil for anything else.
    package static func bitsPerSecond(_ text: String) -> Double? {
        var text = text.lowercased()
        for ending in ["/s", "ps", "bit"] where text.hasSuffix(ending) { text.removeLast(ending.count) }
        return number(text, units: ["k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "": 1])
    }

    /// Parses "50us", "0.2ms" or "1s" in seconds; nil for anything else.
    package static func seconds(_ text: String) -> Double? {
        number(
            text.lowercased(), units: ["ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1])
    }

    /// Parses "500M" or "2.5G" in bytes/s; nil for anything else.
    package static func bytesPerSecond(_ text: String) -> Double? {
        var text = text.lowercased()
        for ending in ["/s", "b"] where text.hasSuffix(ending) { text.removeLast(ending.count) }
        return number(text, units: ["k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "": 1])
    }

    private static func number(_ text: String, units: [String: Double]) -> Double? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let unit = units[String(text.dropFirst(digits.count))], let value = Double(digits),
            value.isFinite, value > 0
        else { return nil }
        return value * unit
    }
}
