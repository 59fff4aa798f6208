import Foundation

extension FixtureCase {
    /// The environment variable that lists folders with further cases, separated by colons.
    package static let variable = "DISTTRAIN_FIXTURES"

    /// The committed cases.
    package static let committed: [FixtureCase] = committedWalk.cases
    /// The committed cases, and those in the folders listed by DISTTRAIN_FIXTURES.
    package static let all: [FixtureCase] = committed + listedWalk.cases
    /// Invalid cases, one line each.
    package static let faults: [String] = committedWalk.faults + listedWalk.faults

    private static let committedWalk = FixtureWalk(
        folder: fixturePath("cases"))
    private static let listedWalk = FixtureWalk(
        list: ProcessInfo.processInfo.environment[variable] ?? "")

    /// All cases of these kinds.
    package static func all(_ kinds: FixtureKind...) -> [FixtureCase] {
        all.filter { kinds.contains($0.kind) }
    }

    /// The committed cases of these kinds.
    package static func committed(_ kinds: FixtureKind...) -> [FixtureCase] {
        committed.filter { kinds.contains($0.kind) }
    }

    /// The committed case in a folder of this name.
    package static func committed(_ name: String) throws -> FixtureCase {
        guard let found = committed.first(where: { ($0.name as NSString).lastPathComponent == name }) else {
            throw FixtureError(name, "is no committed case")
        }
        return found
    }
}

/// The cases in folders, at any depth.
package struct FixtureWalk: Sendable {
    package private(set) var cases: [FixtureCase] = []
    /// All problems: a case is never ignored silently.
    package private(set) var faults: [String] = []
    private var visited: Set<String> = []

    /// Finds all cases in a folder, which may itself be one.
    package init(folder: String) {
        walk(folder, name: (folder as NSString).lastPathComponent)
    }

    /// Finds all cases in the folders of a colon-separated list.
    package init(list: String) {
        for folder in list.split(separator: ":").map(String.init) {
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue
            else {
                faults.append("\(folder): \(FixtureCase.variable) names it, and it is no folder")
                continue
            }
            if !walk(folder, name: URL(filePath: folder).standardizedFileURL.lastPathComponent) {
                faults.append(
                    "\(folder): \(FixtureCase.variable) names it, and it holds no case, a folder with a "
                        + "\(FixtureCase.settingsFile) (docs/fixtures.md)")
            }
        }
    }

    /// Whether the folder contains any case, valid or not. Each folder is traversed once, regardless of the
    /// number of links or names.
    @discardableResult
    private mutating func walk(_ folder: String, name: String) -> Bool {
        guard visited.insert(Self.resolved(folder)).inserted else { return true }
        do {
            let entries = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
            if entries.contains(FixtureCase.settingsFile) {
                cases.append(try FixtureCase(path: folder, name: name))
                return true
            }
            var found = entries.contains(FixtureCase.tensorsFile)
            if found {
                faults.append("\(folder): has \(FixtureCase.tensorsFile), and no \(FixtureCase.settingsFile)")
            }
            for entry in entries {
                let path = (folder as NSString).appendingPathComponent(entry)
                var isFolder: ObjCBool = false
                if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue {
                    found = walk(path, name: "\(name)/\(entry)") || found
                }
            }
            return found
        } catch {
            let text = "\(error)"
            faults.append(text.contains(folder) ? text : "\(folder): \(text)")
            return true
        }
    }

    private static func resolved(_ folder: String) -> String {
        URL(filePath: folder).resolvingSymlinksInPath().path
    }
}
