import FileFormats
import LDMModel
import Support

/// A case's `case.json`. A value may have several names, and may be in a section: "lr" is found at the top
/// level and in {"optimizer": {"lr": 1e-4}}.
package struct FixtureSettings: Sendable {
    let json: JSONValue
    /// Path of the file, for errors.
    package let file: String

    init(_ json: JSONValue, file: String) {
        self.json = json
        self.file = file
    }

    /// The first of these values that is present and not null, at the top level or in a section.
    package func find(_ names: [String]) -> JSONValue? {
        let sections = (json.objectValue?.members ?? []).map(\.value).filter { $0.objectValue != nil }
        for place in [json] + sections {
            for name in names {
                if let value = place[name], !value.isNull { return value }
            }
        }
        return nil
    }

    private func read<Value>(
        _ names: [String], _ expected: String, _ convert: (JSONValue) -> Value?
    ) throws -> Value? {
        guard let found = find(names) else { return nil }
        guard let value = convert(found) else {
            throw FixtureError(
                file, "\(names.joined(separator: " or ")) is \(found.kind), expected \(expected)")
        }
        return value
    }

    private func required<Value>(_ names: [String], _ value: Value?) throws -> Value {
        guard let value else {
            throw FixtureError(file, "has no \(names.joined(separator: " or ")) (docs/fixtures.md)")
        }
        return value
    }

    package func string(_ names: [String]) throws -> String {
        try required(names, try read(names, "text", \.stringValue))
    }

    /// - Parameter standard: the default; if nil, the case must contain the value.
    package func integer(_ names: [String], default standard: Int? = nil) throws -> Int {
        try required(names, try read(names, "a whole number", \.intValue) ?? standard)
    }

    /// - Parameter standard: the default; if nil, the case must contain the value.
    package func number(_ names: [String], default standard: Double? = nil) throws -> Double {
        try required(names, try number(optional: names) ?? standard)
    }

    package func number(optional names: [String]) throws -> Double? {
        try read(names, "a number", \.doubleValue)
    }

    package func bool(_ names: [String], default standard: Bool) throws -> Bool {
        try read(names, "true or false", \.boolValue) ?? standard
    }

    package func numbers(_ names: [String]) throws -> [Double]? {
        try read(names, "a list of numbers") { value in
            guard let list = value.arrayValue else { return nil }
            let numbers = list.compactMap(\.doubleValue)
            return numbers.count == list.count ? numbers : nil
        }
    }

    /// A name, either alone or in a section: "cosine" or {"name": "cosine", …}.
    package func choice(_ names: [String], default standard: String) throws -> String {
        try read(names, "text, or an object with its name") { value in
            value.stringValue ?? value["name"]?.stringValue ?? value["type"]?.stringValue
        } ?? standard
    }

    /// A scheduler's configuration from the section "scheduler", or from top-level keys.
    package func scheduler() throws -> SchedulerConfig {
        if let section = json["scheduler"], section.objectValue != nil {
            return try SchedulerConfig(config: ConfigNode(section, source: file))
        }
        var keys = JSONObject()
        for key in ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"] {
            if let value = json[key] { keys[key] = value }
        }
        return try SchedulerConfig(config: ConfigNode(.object(keys), source: file))
    }
}
