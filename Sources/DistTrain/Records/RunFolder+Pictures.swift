import Foundation

extension RunFolder {
    /// Puts the pictures back to the step that a run goes on from, so that none shows a past that is left behind:
    /// later samples are moved to `samples/superseded/`, and `loss.png` is drawn anew. For the rank with the lock,
    /// when the metrics have been cut back.
    ///
    /// - Parameter step: nil for a start from nothing.
    public func cutPicturesBack(to step: Int?) throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: samples)
        let aside = (samples as NSString).appendingPathComponent("superseded")
        for name in files {
            guard let found = Self.step(ofSamples: name), found > step ?? -1 else { continue }
            try FileManager.default.createDirectory(atPath: aside, withIntermediateDirectories: true)
            let (old, new) = ("\(samples)/\(name)", "\(aside)/\(name)")
            if rename(old, new) != 0 {
                throw RunFolderError(path: old, detail: "cannot be moved to \(aside): \(systemReason())")
            }
        }
        unlink("\(path)/loss.png")
        try LossCurve(self).write()
    }

    /// The step in a name such as `samples_00001000.png`; nil for any other name.
    static func step(ofSamples name: String) -> Int? {
        guard name.hasPrefix("samples_"), name.hasSuffix(".png") else { return nil }
        let digits = name.dropFirst(8).dropLast(4)
        guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(digits)
    }
}
