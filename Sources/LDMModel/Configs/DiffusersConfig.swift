import FileFormats
import Foundation
import Support

/// A component of a diffusers pipeline described by a JSON file (`config.json`, `scheduler_config.json`).
///
/// Parsing is strict: an unknown key or an unsupported value is an error. A model that silently ignored part
/// of its configuration would load without an error but compute something else.
package protocol DiffusersConfig: ConfigSection {
    /// The accepted values of diffusers' `_class_name`.
    static var classNames: [String] { get }
    var className: String { get set }
}

extension DiffusersConfig {
    package static func ignores(_ key: String) -> Bool { key.hasPrefix("_") }

    package var className: String {
        get { Self.classNames[0] }
        set {}
    }

    package mutating func begin(_ node: ConfigNode, path: [String]) throws(ConfigError) {
        if let name = try Self.className(in: node, path: path) { className = name }
    }

    /// The class that a file names; nil if it names none.
    static func className(in node: ConfigNode, path: [String]) throws(ConfigError) -> String? {
        guard let found = node["_class_name"] else { return nil }
        guard case .string(let name) = found.value, classNames.contains(name) else {
            throw ConfigError(
                .unsupported, at: path + ["_class_name"],
                "found \(found.found), expected \(classNames.joined(separator: " or "))",
                location: found.location)
        }
        return name
    }

    /// Reads a JSON file in diffusers' format. Keys that start with "_" are ignored.
    package init(contentsOf path: String) throws(ConfigError) {
        try self.init(config: ConfigNode(jsonFile: path))
    }

    /// Validates a configuration that was not read; the error's path is relative to this section.
    package func validate() throws(ConfigError) { _ = try Self(config: node, defaults: self) }

    /// The configuration as JSON text with `_class_name`, as diffusers' `from_pretrained` expects it.
    package func jsonText() throws(JSONError) -> String {
        var object = JSONObject()
        object["_class_name"] = .string(className)
        for entry in node.entries ?? [] { object[entry.key] = entry.node.json }
        return try JSONValue.object(object).text(pretty: true) + "\n"
    }

    /// Writes `jsonText()` to a file, atomically.
    package func write(to path: String) throws {
        try AtomicFile.write(Array(jsonText().utf8), to: path)
    }
}

/// What a changed key means for trained weights.
extension ChangeEffect {
    static var otherTensors: ChangeEffect { .impossible("the model's tensors would not fit") }
    static var otherModel: ChangeEffect { .harmful("the weights were trained for a different computation") }
}

extension ConfigNode {
    /// The keys of two sections whose values differ, each as "KEY is A, there B".
    func differences(from other: ConfigNode) -> [String] {
        (entries ?? []).compactMap { entry in
            let (here, there) = (entry.node.json, other[entry.key]?.json ?? .null)
            guard here != there else { return nil }
            // Serialization cannot fail, because configurations contain only finite numbers.
            return "\(entry.key) is \((try? here.text()) ?? ""), there \((try? there.text()) ?? "")"
        }
    }

    /// Reads a JSON file of at most 16 MB, as diffusers writes it: numbers may be infinite or NaN.
    package init(jsonFile path: String) throws(ConfigError) {
        let location = Location(source: path)
        let bytes: [UInt8]
        do {
            bytes = try readWholeFile(path, limit: 16 << 20)
        } catch {
            throw ConfigError(.file, error.detail, location: location)
        }
        do {
            self.init(try JSONValue(parsing: bytes[...], nonFinite: true), source: path)
        } catch {
            throw ConfigError(.syntax, error.description, location: location)
        }
    }
}

/// Height and width in pixels or latent cells; diffusers writes a single number if both are equal.
package struct SpatialSize: Sendable, Equatable, ConfigValue {
    package var height: Int
    package var width: Int

    package init(_ side: Int) { (height, width) = (side, side) }
    package init(height: Int, width: Int) { (self.height, self.width) = (height, width) }

    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        if case .integer(let side) = node.value {
            self.init(side)
        } else if case .sequence(let parts) = node.value, parts.count == 2,
            case .integer(let height) = parts[0].value,
            case .integer(let width) = parts[1].value
        {
            self.init(height: height, width: width)
        } else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a whole number or [height, width]",
                location: node.location)
        }
    }

    package var node: ConfigNode { height == width ? .integer(height) : .integers([height, width]) }
    package static var typeName: String { "a whole number or [height, width]" }
}

extension ConfigRange<SpatialSize> {
    static var sides: ConfigRange {
        .where("sides of 1 to \(ModelChecks.mostChannels)") {
            let sides = 1...ModelChecks.mostChannels
            return sides.contains($0.height) && sides.contains($0.width)
        }
    }
}

extension ConfigRange<Int> {
    static var channels: ConfigRange { .within(1...ModelChecks.mostChannels) }
    static var layers: ConfigRange { .within(1...ModelChecks.mostLayers) }
}

/// The activation. Only `silu` is implemented; diffusers also calls it `swish`.
package enum Activation: String, ConfigChoice {
    case silu, swish
}

/// Validation shared by all models.
enum ModelChecks {
    /// Limits far above any real model. Within them, no product of sizes overflows, and a hostile file cannot
    /// exhaust memory with layers.
    static let mostChannels = 1 << 16
    static let mostLayers = 64

    /// Validates that block lists have the same length, and that the channels of each level are divisible by
    /// the groups of GroupNorm.
    static func levels(
        channels: [Int], down: Int, up: Int, groups: Int
    ) throws(ConfigError) {
        if channels.isEmpty {
            throw ConfigError(
                .invalidValue, at: ["block_out_channels"], "found an empty list, expected one or more levels")
        }
        if channels.count > 16 {
            throw ConfigError(
                .invalidValue, at: ["block_out_channels"],
                "found \(channels.count) levels, expected 16 at most")
        }
        for (key, count) in [("down_block_types", down), ("up_block_types", up)] where count != channels.count
        {
            throw ConfigError(
                .invalidValue, at: [key],
                "found \(count) blocks, expected \(channels.count), as many as block_out_channels has")
        }
        for channel in channels where channel % groups != 0 {
            throw ConfigError(
                .invalidValue, at: ["block_out_channels"],
                "\(channel) channels are not divisible by norm_num_groups \(groups); choose multiples of"
                    + " \(groups) or fewer groups")
        }
    }
}
