import Foundation

/// Makes the folder that a command writes to.
package func makeOutputFolder(_ path: String) throws(RunError) {
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw RunError(
            "\(path): cannot be created (\(systemReason(of: error))); choose another --output",
            exitStatus: ExitStatus.forSystemError(systemCode(of: error), otherwise: ExitStatus.usage))
    }
}

/// Makes a folder with those above it, where it is not there.
package func makeFolder(_ path: String) throws(FileError) {
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw FileError(path, "cannot be created: \(systemReason(of: error))", code: systemCode(of: error))
    }
}

/// A number as file names have it: 00042.
package func fiveDigits(_ number: Int) -> String {
    String(repeating: "0", count: max(0, 5 - "\(number)".count)) + "\(number)"
}
