import Records

extension SamplingPictureKind {
    func caption(_ say: ReportLanguage) -> String {
        switch self {
        case .denoising:
            return say(
                "from noise to sample: above each x_t, below what the model takes x₀ for",
                "ノイズから標本まで: 上段は x_t、下段はモデルが予測する x₀")
        case .interpolation:
            return say(
                "interpolation between the noise of two samples, one pair a row",
                "2 つの標本のノイズ間の補間 (1 行に 1 組)")
        }
    }
}
