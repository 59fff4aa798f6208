import FileFormats
import Foundation
import Support

/// Code shared by the configurations of diffusion models and autoencoders.
package enum ConfigurationFile {
    /// Reads a file of at most ``YAMLLimits/bytes``.
    package static func read(_ path: String) throws(ConfigError) -> String {
        let location = ConfigNode.Location(source: path)
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw ConfigError(.file, "does not exist", location: location)
        }
        guard !isFolder.boolValue else {
            throw ConfigError(.file, "is a folder, expected a YAML file", location: location)
        }
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try readWholeFile(path, limit: YAMLLimits.bytes)
        } catch {
            throw ConfigError(.file, error.detail, location: location)
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw ConfigError(.syntax, "is not UTF-8 text", location: location)
        }
        return text
    }

    /// Whether a file is the configuration of an autoencoder rather than of a U-Net.
    package static func isOfAutoencoder(_ path: String) throws(ConfigError) -> Bool {
        let root = try YAMLNode.parse(read(path), source: path)
        return root["loss"] != nil || root["model"]?["latent_channels"] != nil
    }

    /// Parses a configuration and applies the overrides in order, then `--init-from`.
    static func tree(
        _ yaml: String, source: String, overrides: [String], initFrom: String?
    ) throws(ConfigError) -> ConfigNode {
        var root = try YAMLNode.parse(yaml, source: source)
        if root.value == .null {
            throw ConfigError(.missingKey, "is empty, expected a configuration", location: root.location)
        }
        for text in overrides { try ConfigurationOverride(text).apply(to: &root) }
        if let initFrom {
            root["init_from"] = ConfigNode(.string(initFrom), at: .init(source: "--init-from"))
        }
        return root
    }

    /// The model's keys; if the section is absent, those of the model that provides the initial weights; nil if
    /// there is neither.
    ///
    /// - Parameter readModel: returns the keys of the model in a folder.
    static func model(
        _ root: ConfigNode, folder: String, readModel: (String) throws -> ConfigNode
    ) throws(ConfigError) -> ConfigNode? {
        if let node = root["model"], node.value != .null {
            return try model(node, path: ["model"], folder: folder)
        }
        guard let initFrom = root["init_from"], initFrom.value != .null else { return nil }
        let path = try String(config: initFrom, path: ["init_from"])
        do {
            return try readModel(path)
        } catch {
            throw ConfigError(.file, at: ["init_from"], "\(error)")
        }
    }

    /// Expands `config: FILE.json` to the keys of that file; keys next to `config` override them.
    private static func model(
        _ node: ConfigNode, path: [String], folder: String
    ) throws(ConfigError) -> ConfigNode {
        guard let reference = node["config"] else { return node }
        let file = try String(config: reference, path: path + ["config"])
        let resolved =
            file.hasPrefix("/") || folder.isEmpty ? file : (folder as NSString).appendingPathComponent(file)
        var model: ConfigNode
        do throws(ConfigError) {
            model = try ConfigNode(jsonFile: resolved)
        } catch {
            throw ConfigError(
                error.kind, at: path + ["config"], error.description, location: reference.location)
        }
        for entry in node.entries ?? [] where entry.key != "config" { model[entry.key] = entry.node }
        return model
    }

    /// A hash of the tree's JSON.
    static func hash(_ node: ConfigNode) -> String {
        // Serialization cannot fail: a validated configuration has only finite numbers.
        let text = (try? node.json.text()) ?? ""
        return padded(fnv1a(text), digits: 16, radix: 16)
    }
}
