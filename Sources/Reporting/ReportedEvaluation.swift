import FileFormats
import Foundation
import Support

/// An `evaluation/step-00001000-inception.json` file. Reading is lenient, since other versions may have
/// written fewer or more fields.
package struct ReportedEvaluation {
    let step: Int
    let weights: String?
    let features: String?
    let count: Int?
    let reference: String?
    let referenceCount: Int?
    let samplerSteps: Int?
    let eta: Double?
    let seed: String?
    /// Metrics in the order of the file.
    let metrics: [(name: String, value: Double)]
    /// Count and metrics of each class, in the order of the file.
    let classes: [(name: String, count: Int?, metrics: [(name: String, value: Double)])]
    /// Paths of the pictures by name.
    let pictures: [(name: String, path: String)]

    /// All evaluations of a run, in ascending order of steps.
    static func all(in run: String) -> [ReportedEvaluation] {
        let folder = "\(run)/evaluation"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasSuffix(".json") }.sorted()
            .compactMap { ReportedEvaluation("\(folder)/\($0)", run: run) }
            .sorted {
                ($0.step, $0.weights ?? "", $0.features ?? "") < (
                    $1.step, $1.weights ?? "", $1.features ?? ""
                )
            }
    }

    /// Returns nil if the file is not an evaluation.
    private init?(_ path: String, run: String) {
        guard let json = try? ConfigNode(jsonFile: path).json, let step = json["step"]?.intValue,
            let metrics = json["metrics"]?.objectValue
        else { return nil }
        self.step = step
        weights = json["weights"]?.stringValue
        features = json["features"]?.stringValue
        count = json["count"]?.intValue
        reference = json["reference"]?["path"]?.stringValue ?? json["reference"]?.stringValue
        referenceCount = json["reference"]?["count"]?.intValue
        samplerSteps = json["sampler"]?["steps"]?.intValue
        eta = json["sampler"]?["eta"]?.doubleValue
        seed = json["sampler"]?["seed"].flatMap { $0.stringValue ?? $0.intValue.map(String.init) }
        self.metrics = Self.numbers(metrics)
        classes = (json["classes"]?.objectValue?.members ?? []).map { member in
            let metrics = Self.numbers(member.value.objectValue ?? JSONObject())
            return (member.key, member.value["count"]?.intValue, metrics.filter { $0.name != "count" })
        }
        pictures = (json["pictures"]?.objectValue?.members ?? []).compactMap { member in
            guard let name = member.value.stringValue else { return nil }
            // Paths are relative to the run folder; ignore any that lead outside it.
            let inside = !name.hasPrefix("/") && !name.split(separator: "/").contains("..")
            return inside ? (member.key, "\(run)/\(name)") : nil
        }
    }

    private static func numbers(_ object: JSONObject) -> [(name: String, value: Double)] {
        object.members.compactMap { member in member.value.doubleValue.map { (member.key, $0) } }
    }

    /// The distance to the reference, whatever its features; smaller is better.
    var distance: (name: String, value: Double)? {
        metrics.first { Self.distances.contains($0.name) }
    }

    /// The metrics that are distances, in descending order of significance of their features.
    static let distances = ["fid", "fd_vae", "fd_pixel"]

    /// The title of a metric with the direction of better values, such as "FID ↓".
    static func title(of metric: String, _ say: ReportLanguage) -> String {
        switch metric {
        case "fid": return "FID ↓"
        case "fd_vae": return say("Fréchet distance, VAE ↓", "フレシェ距離 (VAE) ↓")
        case "fd_pixel": return say("Fréchet distance, pixels ↓", "フレシェ距離 (画素) ↓")
        case "kid": return "KID ↓"
        case "kd_vae": return say("kernel distance, VAE ↓", "カーネル距離 (VAE) ↓")
        case "kd_pixel": return say("kernel distance, pixels ↓", "カーネル距離 (画素) ↓")
        case "kid_in_class": return say("KID within classes ↓", "クラス内の KID ↓")
        case "kd_vae_in_class", "kd_pixel_in_class":
            return say("kernel distance within classes ↓", "クラス内のカーネル距離 ↓")
        case "precision": return say("precision ↑", "適合率 ↑")
        case "recall": return say("recall ↑", "再現率 ↑")
        case "density": return say("density ↑", "密度 ↑")
        case "coverage": return say("coverage ↑", "被覆率 ↑")
        case "mean_pairwise_distance": return say("mean pairwise distance", "標本間の平均距離")
        case "duplicates": return say("duplicates ↓", "重複 ↓")
        case "nearest_training_distance": return say("distance to nearest training image", "最近傍の学習画像までの距離")
        case "memorised": return say("memorised ↓", "暗記された標本 ↓")
        case "reference_spacing":
            return say("nearest-neighbour distance within the reference", "基準画像の最近傍間の距離")
        default: return metric.replacingOccurrences(of: "_", with: " ")
        }
    }
}
