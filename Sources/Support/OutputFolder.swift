import Foundation

/// Creates the output folder of a command.
package func makeOutputFolder(_ path: String) throws(RunError) {
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw RunError(
            "\(path): cannot be created (\(systemReason(of: error))); choose another --output",
            exitStatus: ExitStatus.forSystemError(systemCode(of: error), otherwise: ExitStatus.usage))
    }
}

/// Creates a folder and its missing parents.
package func makeFolder(_ path: String) throws(FileError) {
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw FileError(path, "cannot be created: \(systemReason(of: error))", code: systemCode(of: error))
    }
}

/// A number with leading zeros as in file names: 00042.
package func fiveDigits(_ number: Int) -> String {
    String(repeating: "0", count: max(0, 5 - "\(number)".count)) + "\(number)"
}
