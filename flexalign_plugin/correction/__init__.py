"""From the motion to images: frames resampled once, summed, dose-weighted, cropped and binned; their power spectra."""
